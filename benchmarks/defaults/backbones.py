"""The pretrained backbones of the matrix: every real network of ../shared/data, glyphnet, and all-MiniLM-L6-v2.

Networks that timm has no name for are built by hand and wrapped, as a user would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import zoo
from zoo.registry.registry import use_registry

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CENTRED = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
PIXELS = {"mobilenetv2_100": 96, "mobilenetv2_035": 96, "mobilenetv1_025": 96, "resnet20_cifar10": 32, "vit_cifar10": 32, "glyphnet": 28}


class BasicBlock(nn.Module):
    """A block of the CIFAR ResNet, whose shortcut pads channels with zeros (He et al. 2016, option A)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.stride, self.padding = stride, (width - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(out + shortcut)


class CifarResNet(nn.Module):
    """ResNet-20 for 32 pixels, without its classifier; gives a feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(BasicBlock(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(BasicBlock(16, 32, 2), *(BasicBlock(32, 32, 1) for _ in range(2)))
        self.layer3 = nn.Sequential(BasicBlock(32, 64, 2), *(BasicBlock(64, 64, 1) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        return features


def _filled(network: nn.Module, file: Path, *, without: tuple[str, ...]) -> nn.Module:
    """Return a network with the values of a file, whose classifier ``without`` names."""
    values = load_file(file)
    network.load_state_dict({name: value for name, value in values.items() if not name.startswith(without)})
    return network


def resnet20(weights: Path) -> zoo.Backbone:
    """Return the CIFAR ResNet-20, trained on CIFAR-10."""
    network = _filled(CifarResNet(), weights / "resnet20_cifar10" / "model.safetensors", without=("linear.",))
    layers = {"stem": ["conv1", "bn1"], "stage1": "layer1", "stage2": "layer2", "stage3": "layer3"}
    features = zoo.Features(dim=64, layout="BCHW")
    return zoo.wrap(network, inputs=zoo.Image(size=32, **IMAGENET), layers=layers, features=features, name="resnet20_cifar10")


def vit(weights: Path | None) -> zoo.Backbone:
    """Return the small ViT, trained on CIFAR-10 for five epochs, or from random values without a folder of weights."""
    from timm.models.vision_transformer import VisionTransformer

    class Tokens(VisionTransformer):  # type: ignore[misc]  # timm's classes are untyped
        def forward(self, x: Tensor) -> Tensor:
            tokens: Tensor = self.forward_features(x)
            return tokens

    shape = {"img_size": 32, "patch_size": 4, "embed_dim": 128, "depth": 6, "num_heads": 4, "mlp_ratio": 2.0, "num_classes": 0}
    network = Tokens(**shape, norm_layer=partial(nn.LayerNorm, eps=1e-5))
    if weights is not None:
        network = _filled(network, weights / "vit_prenorm_cifar10" / "model.safetensors", without=("head.",))
    layers = {"stem": ["cls_token", "pos_embed", "patch_embed"], "block": ["blocks.*", "norm"]}
    features = zoo.Features(dim=128, layout="BND", prefix_tokens=1, pool="token")
    inputs = zoo.Image(size=32, **CENTRED)
    name, trained = ("vit", False) if weights is None else ("vit_cifar10", True)
    return zoo.wrap(network, inputs=inputs, layers=layers, features=features, pretrained=trained, name=name)


def mobilenetv1(weights: Path) -> zoo.Backbone:
    """Return MobileNetV1 at a quarter of the width, trained on ImageNet."""
    from timm.models.efficientnet import _gen_mobilenet_v1

    network = _gen_mobilenet_v1("mobilenetv1_100", 0.25, pad_type="same", bn_eps=1e-3)
    network.load_state_dict(load_file(weights / "mobilenetv1_025_in1k" / "model.safetensors"))
    network.forward = network.forward_features
    network.classifier = network.global_pool = nn.Identity()
    layers = {"stem": ["conv_stem", "bn1"], "stage": ["blocks.*"]}
    inputs = zoo.Image(size=128, **CENTRED)
    return zoo.wrap(network, inputs=inputs, layers=layers, features=zoo.Features(dim=256, layout="BCHW"), name="mobilenetv1_025")


WRAPPED: Mapping[str, Callable[[Path], zoo.Backbone]] = {"resnet20_cifar10": resnet20, "vit_cifar10": vit, "mobilenetv1_025": mobilenetv1}
NAMED = {"mobilenetv2_100": "local/mobilenetv2_100", "mobilenetv2_035": "local/mobilenetv2_035", "glyphnet": "zoo/glyphnet"}


def backbone(name: str, data: Path) -> zoo.Backbone:
    """Return a backbone of the matrix by its name.

    Args:
        name: One of ``IMAGES`` or ``TEXTS``.
        data: The folder ../shared/data.
    """
    if name in WRAPPED:
        return WRAPPED[name](data / "weights")
    if name == "minilm":
        from sets import text_model

        return zoo.get(text_model())
    use_registry(files=[data / "registry.toml"])
    return zoo.get(NAMED[name])


IMAGES = tuple(PIXELS)
TEXTS = ("minilm",)
