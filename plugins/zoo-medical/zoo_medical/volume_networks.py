"""MONAI's three-dimensional networks without their heads.

Every builder takes ``img_size`` and ``spacing``: the declared input follows them, and where nothing is said otherwise the network
takes any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.resnet import ResNet, get_inplanes, resnet_params
from monai.networks.nets.swin_unetr import SwinTransformer
from monai.networks.nets.vit import ViT
from torch import Tensor, nn

import zoo

Size = int | Sequence[int] | None
Spacing = float | Sequence[float] | None

DENSENETS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32), 264: (6, 12, 64, 48)}
SWIN_STEP = 32  # voxels that one feature of the last stage stands for


class ResNetFeatures(ResNet):
    """MONAI's ResNet up to its pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, channels, depth, height, width)``."""
        x = self.act(self.bn1(self.conv1(x)))
        x = x if self.no_max_pool else self.maxpool(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x

    def _downsample_basic_block(self, x: Tensor, planes: int, stride: int, spatial_dims: int = 3) -> Tensor:
        # MONAI's own cuts the shortcut out of the gradient (`out.data`), so that the first stages would learn through half of it.
        out = nn.functional.avg_pool3d(x, kernel_size=1, stride=stride)
        return torch.cat([out, out.new_zeros(out.shape[0], planes - out.shape[1], *out.shape[2:])], dim=1)


class DenseNetFeatures(DenseNet):
    """MONAI's DenseNet up to its pooling."""

    def __init__(self, **options: Any) -> None:
        super().__init__(out_channels=1, **options)
        del self.class_layers

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, channels, depth, height, width)``."""
        return nn.functional.relu(self.features(x))


class SwinFeatures(SwinTransformer):
    """The encoder of MONAI's SwinUNETR: the normalised output of its last stage."""

    def forward(self, x: Tensor, normalize: bool = True) -> Tensor:
        """Return ``(batch, 16 * feature_size, depth / 32, height / 32, width / 32)``."""
        features: Tensor = super().forward(x, normalize)[-1]  # type: ignore[no-untyped-call]  # MONAI leaves it untyped
        return features


class ViTFeatures(ViT):
    """MONAI's ViT: its normalised tokens."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for block in self.blocks:
            del block.norm_cross_attn  # of an attention that an encoder does not have

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, tokens, channels)``; there is no class token."""
        tokens: Tensor = super().forward(x)[0]  # type: ignore[no-untyped-call]  # MONAI leaves it untyped
        return tokens


def resnet3d(
    depth: int,
    in_chans: int = 1,
    img_size: Size = None,
    spacing: Spacing = None,
    medicalnet: bool = False,
    conv1_t_stride: int = 1,
    no_max_pool: bool = False,
) -> nn.Module:
    """Build a ResNet.

    Args:
        depth: 10, 18, 34, 50, 101, 152 or 200.
        in_chans: Number of input channels.
        img_size: Size of the declared input in voxels.
        spacing: Millimetres per voxel of the declared input.
        medicalnet: Whether shortcuts are those of MedicalNet instead of MONAI's defaults.
        conv1_t_stride: Stride of the first layer; 2 needs an eighth of the work.
        no_max_pool: Whether to leave out the pooling after the first layer, for volumes of few voxels.
    """
    block, layers, shortcut, bias, _ = resnet_params[f"resnet{depth}"]
    return ResNetFeatures(
        block,
        layers,
        get_inplanes(),  # type: ignore[no-untyped-call]  # MONAI leaves it untyped
        n_input_channels=in_chans,
        conv1_t_stride=conv1_t_stride,
        no_max_pool=no_max_pool,
        feed_forward=False,
        shortcut_type=shortcut if medicalnet else "B",
        bias_downsample=bias if medicalnet else True,
    )


def densenet3d(depth: int, in_chans: int = 1, img_size: Size = None, spacing: Spacing = None, dropout_prob: float = 0.0) -> nn.Module:
    """Build a DenseNet; volumes have at least 32 voxels a side.

    Args:
        depth: 121, 169, 201 or 264.
        in_chans: Number of input channels.
        img_size: Size of the declared input in voxels.
        spacing: Millimetres per voxel of the declared input.
        dropout_prob: Dropout after each dense layer, in [0, 1).
    """
    _at_least(img_size, 32, f"densenet{depth}-3d")
    return DenseNetFeatures(spatial_dims=3, in_channels=in_chans, block_config=DENSENETS[depth], dropout_prob=dropout_prob)


def swin3d(
    feature_size: int, in_chans: int = 1, img_size: Size = None, spacing: Spacing = None, use_v2: bool = False, drop_path_rate: float = 0.0
) -> nn.Module:
    """Build the encoder of a SwinUNETR, for sides that are multiples of 32 voxels.

    Args:
        feature_size: Width of the first stage.
        in_chans: Number of input channels.
        img_size: Size of the declared input in voxels.
        spacing: Millimetres per voxel of the declared input.
        use_v2: Whether a residual convolution stands before each stage.
        drop_path_rate: Stochastic depth of the last block, in [0, 1).

    Raises:
        zoo.OptionError: If a side is not a multiple of 32.
    """
    _multiples(img_size, SWIN_STEP, f"swinunetr-{feature_size} takes sides that are multiples of {SWIN_STEP} voxels")
    return SwinFeatures(
        in_chans=in_chans,
        embed_dim=feature_size,
        window_size=(7, 7, 7),
        patch_size=(2, 2, 2),
        depths=(2, 2, 2, 2),
        num_heads=(3, 6, 12, 24),
        drop_path_rate=drop_path_rate,
        use_v2=use_v2,
    )


def vit3d(
    hidden_size: int,
    num_heads: int,
    in_chans: int = 1,
    img_size: Size = None,
    spacing: Spacing = None,
    patch_size: int = 16,
    num_layers: int = 12,
    dropout_rate: float = 0.0,
) -> nn.Module:
    """Build a ViT for volumes of one size.

    Args:
        hidden_size: Width of a token.
        num_heads: Attention heads.
        in_chans: Number of input channels.
        img_size: Size of the input in voxels; its position embeddings are for this size only.
        spacing: Millimetres per voxel of the declared input.
        patch_size: Side of the cube that becomes a token, in voxels.
        num_layers: Number of blocks.
        dropout_rate: Dropout, in [0, 1].

    Raises:
        zoo.OptionError: If a side is not a multiple of ``patch_size``.
    """
    sides = _sides(img_size) or (96, 96, 96)
    _multiples(sides, patch_size, f"this ViT takes sides that are multiples of patch_size={patch_size} voxels")
    return ViTFeatures(
        in_channels=in_chans,
        img_size=sides,
        patch_size=patch_size,
        hidden_size=hidden_size,
        mlp_dim=4 * hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        dropout_rate=dropout_rate,
    )


def _sides(size: Size) -> tuple[int, ...]:
    if size is None:
        return ()
    return (size,) * 3 if isinstance(size, int) else tuple(size)


def _at_least(size: Size, least: int, name: str) -> None:
    _check_sides(size, tuple(max(side, least) for side in _sides(size)), f"{name} takes sides of at least {least} voxels")


def _multiples(size: Size, step: int, rule: str) -> None:
    _check_sides(size, tuple(max(1, round(side / step)) * step for side in _sides(size)), rule)


def _check_sides(size: Size, nearest: tuple[int, ...], rule: str) -> None:
    """Raise if a size is not the nearest one that works."""
    if _sides(size) != nearest:
        shown = nearest[0] if len(set(nearest)) == 1 else nearest
        raise zoo.OptionError(f"{rule}; img_size is {size}, and img_size={shown} works")
