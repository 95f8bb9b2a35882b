"""Masked autoencoders: hidden patches of an image are reconstructed from the others (He et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch
from zoo.engine.cache.forward import Forward
from zoo.engine.options.recipe import Recipe
from zoo.errors import OptionError, checked_fields, fault_list
from zoo.transfer.method import Method
from zoo.transfer.pretraining.objective import SelfSupervised
from zoo.transfer.pretraining.patches import Patches, find_patches, patchify, shown_patches
from zoo.transfer.recipes import OWN_RECIPES
from zoo.util.numbers import is_finite, is_whole

if TYPE_CHECKING:
    from zoo.engine.objective.supervised import Supervised

HEAD_WIDTH = 32  # of the decoder's attention


def masked_pixel_loss(found: Tensor, patches: Tensor, hidden: Tensor) -> Tensor:
    """Return per image the mean squared error of the hidden patches, whose values have mean 0 and variance 1 in each (He et al. 2022).

    Args:
        found: Reconstructed patches ``(n, patches, values)``.
        patches: The true ones.
        hidden: Whether a patch is hidden, ``(n, patches)``; at least one of each image.
    """
    mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    error = (found - (patches - mean) / (variance + 1e-6).sqrt()).square().mean(-1)
    return (error * hidden).sum(1) / hidden.sum(1)


def sine_positions(rows: int, columns: int, dim: int) -> Tensor:
    """Return fixed positions of a grid, ``(rows * columns, dim)``: sines and cosines of the row and of the column."""
    rates = 1.0 / 10000 ** (torch.arange(dim // 4) / (dim / 4))

    def encoded(places: Tensor) -> Tensor:
        angles = places[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], 1)

    row, column = torch.meshgrid(torch.arange(rows).float(), torch.arange(columns).float(), indexing="ij")
    return torch.cat([encoded(row.flatten()), encoded(column.flatten())], 1)


class Decoder(nn.Module):
    """From features of visible patches to the pixels of all, by a few transformer blocks.

    Args:
        dim: Width of the features.
        patches: The tokens of the backbone.
        values: Values of a patch.
        width: Width of the decoder.
        depth: Its blocks.
    """

    positions: Tensor

    def __init__(self, dim: int, patches: Patches, values: int, *, width: int, depth: int) -> None:
        super().__init__()
        self._prefix, self._count = patches.prefix, patches.count
        self.embed, self.token = nn.Linear(dim, width), nn.Parameter(0.02 * torch.randn(width))
        self.register_buffer("positions", sine_positions(*patches.grid, width), persistent=False)
        options: dict[str, Any] = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, width // HEAD_WIDTH, 4 * width, **options) for _ in range(depth))
        self.norm, self.pixels = nn.LayerNorm(width), nn.Linear(width, values)

    def forward(self, features: Tensor, shown: Tensor) -> Tensor:
        """Return patches ``(n, patches, values)`` for features ``(n, prefix + visible, dim)``."""
        known = self.embed(features)
        patches = self.token.to(known.dtype).expand(len(known), self._count, -1)
        rows = shown[..., None].expand(-1, -1, known.shape[-1])
        x = patches.scatter(1, rows, known[:, self._prefix :]) + self.positions.to(known.dtype)
        x = torch.cat([known[:, : self._prefix], x], 1)
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.pixels(self.norm(x))[:, self._prefix :]
        return found


class MaskedPatches(SelfSupervised):
    """Hidden patches of each image, reconstructed from the visible ones, which alone pass through the backbone; drawn anew in each step.

    Args:
        base: The objective of the labels, whose training data are used.
        method: The options.
        patches: The tokens of the backbone.
    """

    name, pooled, cache_obstacle = "mae", False, "other patches are hidden in each step"

    def __init__(self, base: Supervised, method: MaskedAutoencoder, patches: Patches) -> None:
        super().__init__(base)
        self._share, self._seed, self._patches = method.mask_ratio, base.config.seed, patches
        values = patches.side**2 * base.model.inputs.channels  # type: ignore[union-attr]  # of images
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            self.decoder = Decoder(base.model.spec.features.dim, patches, values, width=method.decoder_width, depth=method.decoder_depth)
        self.module = nn.ModuleDict({"model": base.model, "decoder": self.decoder})

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the sum of the errors of the images."""
        one, patches = batch["train"], self._patches
        keys = [(self._seed, self._steps, index) for index in one.indices]
        shown = shown_patches(patches.count, self._share, keys).to(one.x.device)
        with forward.autocast():
            with patches.only(shown):
                features = self.model.backbone(one.x)
            found = self.decoder(features, shown)
        hidden = torch.ones(len(shown), patches.count, device=shown.device).scatter(1, shown, 0.0)
        return masked_pixel_loss(found.float(), patchify(one.x.float(), patches.side), hidden).sum()


@checked_fields
@dataclass(frozen=True)
class MaskedAutoencoder(Method):
    """MAE (He et al. 2022): most patches of an image are hidden, and a small decoder reconstructs their pixels from the others.

    For plain ViTs, of which the visible patches alone pass through the blocks, so a step costs a quarter of a usual one. The pixels of each
    patch are normalised. Never judge it by a linear probe alone: its features are made to be fine-tuned.

    Attributes:
        mask_ratio: Share of the patches that are masked, in (0, 1).
        decoder_width: Width of the decoder, a multiple of 32; 512 in the paper.
        decoder_depth: Blocks of the decoder, at least 1; 8 in the paper.

    Raises:
        OptionError: If a value is out of range.
    """

    mask_ratio: float = 0.75
    decoder_width: int = 128
    decoder_depth: int = 2

    name: ClassVar[str] = "mae"
    recipe: ClassVar[Recipe] = OWN_RECIPES["mae"]
    reads: ClassVar[tuple[str, ...]] = ("image", "volume")

    def __post_init__(self) -> None:
        faults = []
        if not is_finite(self.mask_ratio) or not 0 < self.mask_ratio < 1:
            faults.append(f"mask_ratio is {self.mask_ratio!r}; it must be a number above 0 and below 1")
        if not is_whole(self.decoder_width) or self.decoder_width < HEAD_WIDTH or self.decoder_width % HEAD_WIDTH:
            faults.append(f"decoder_width is {self.decoder_width!r}; it must be a multiple of {HEAD_WIDTH}")
        if not is_whole(self.decoder_depth) or self.decoder_depth < 1:
            faults.append(f"decoder_depth is {self.decoder_depth!r}; it must be a whole number of at least 1")
        if faults:
            raise OptionError(fault_list("MaskedAutoencoder cannot train like this:", faults))

    def __call__(self, base: Supervised) -> MaskedPatches:
        """Return the objective of a run.

        Raises:
            OptionError: If the model is no ViT whose blocks take a part of the patches.
        """
        model = base.model
        found = find_patches(model)
        if isinstance(found, str):
            raise OptionError(f"{model.spec.name} cannot be pretrained by MAE: {found}")
        return MaskedPatches(base, self, found)
