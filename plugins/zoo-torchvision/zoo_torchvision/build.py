"""Building torchvision's classifiers as backbones: without the classifier, under torchvision's own names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet, MaxVit, VisionTransformer, get_model_builder  # type: ignore[import-untyped]  # ships no types

import zoo
from zoo_torchvision.families import FAMILIES

# What zoo itself decides, and where the user says it.
TAKEN = {
    "weights": "weights are chosen with zoo.get(…, weights=…)",
    "progress": "zoo shows the progress of a download",
    "num_classes": "the number of classes belongs to the head: adapt(num_classes=…)",
    "aux_logits": "auxiliary heads are no part of a backbone",
    "dropout_aux": "auxiliary heads are no part of a backbone",
    "image_size": "give img_size",
    "input_size": "give img_size",
}
# Options that users expect of any backbone, and what to do where an architecture does not have them.
ABSENT = {
    "img_size": "it takes images of any size: pass image_size to fit()",
    "dropout": "its dropout belongs to the head: adapt(…, dropout=…)",
    "drop_path_rate": "torchvision calls it stochastic_depth_prob, and only EfficientNet and ConvNeXt can be given it",
    "stochastic_depth_prob": "only EfficientNet and ConvNeXt can be given it",
    "output_stride": "torchvision dilates ResNet by replace_stride_with_dilation and MobileNetV3 by dilated, and has it in no other",
}
# The parts that follow the features of maps.
TAIL = ("avgpool", "dropout", "flatten", "fc", "head", "classifier")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in torchvision's preprocessing


def create(architecture: str, *, in_chans: int | None = None, img_size: int | Iterable[int] | None = None, **options: Any) -> nn.Module:
    """Build a torchvision classifier without its classifier; tensors have torchvision's names.

    Args:
        architecture: torchvision's name.
        in_chans: Number of input channels, where it is not three.
        img_size: Height and width in pixels, for the families that are built for one size.
        **options: Options of torchvision's class, such as ``stochastic_depth_prob`` or ``transform_input``.

    Raises:
        zoo.OptionError: If the architecture has no such option, or refuses its value.
    """
    builder = get_model_builder(architecture)
    family = FAMILIES[family_of(architecture)]
    given = {**options, "img_size": img_size} if img_size is not None else options
    known = [*family.options, "in_chans", *(["img_size"] if family.size_option else [])]
    zoo.check_options(given, known, f"torchvision/{architecture}", remedies={**ABSENT, **TAKEN})
    try:
        arguments = sized(family.size_option, img_size) | _initialised(family.options) | options
        home: nn.Module = builder(weights=None, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        values = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise zoo.OptionError(f"torchvision/{architecture} refuses {values}: {error}") from error
    if in_chans not in (None, 3):
        replace_stem(home, in_chans)
    return backbone_of(home, in_chans or 3)


def family_of(architecture: str) -> str:
    """Return the name of the class of an architecture."""
    from zoo_torchvision.catalogue import table

    family: str = table()["architectures"][architecture]["family"]
    return family


def sized(option: str, img_size: int | Iterable[int] | None) -> dict[str, Any]:
    """Return the image-size argument of torchvision's builder; empty without one."""
    if img_size is None:
        return {}
    sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(sides) != 2:
        raise ValueError(f"an image size is one number or height and width, not {len(sides)} numbers")
    height, width = sides
    if option == "input_size":
        return {option: (height, width)}
    if height != width:
        raise ValueError("it takes square images only")
    return {option: height}


def _initialised(options: tuple[str, ...]) -> dict[str, Any]:
    """Return the arguments of networks with auxiliary heads; ``init_weights`` is passed explicitly to silence a warning."""
    return {"aux_logits": False, "init_weights": True} if "transform_input" in options else {}


def replace_stem(home: nn.Module, in_chans: int) -> None:
    """Give the first convolution another number of input channels, in place; its values are new."""
    name, old = next((name, module) for name, module in home.named_modules() if isinstance(module, nn.Conv2d))
    new = nn.Conv2d(
        in_chans,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]  # two numbers
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out")
    path, _, last = name.rpartition(".")
    setattr(home.get_submodule(path), last, new)


def backbone_of(home: nn.Module, in_chans: int = 3) -> nn.Module:
    """Return the features of a torchvision classifier as a module whose tensors have the classifier's names.

    Args:
        home: torchvision's network; its parts become the backbone's.
        in_chans: Number of its input channels.

    Returns:
        The chain of its parts: up to the pooling where only a linear layer follows it, else up to the last layer. For a vision
        transformer all its tokens, the class token first.
    """
    if isinstance(home, VisionTransformer):
        return Tokens(home)
    parts = {name: part for name, part in home.named_children() if name not in TAIL and not name.lower().startswith("aux")}
    if getattr(home, "transform_input", False):
        parts = {"transform_input": TransformInput(in_chans), **parts}
    if isinstance(home, DenseNet):
        parts["relu"] = nn.ReLU(inplace=True)
    if isinstance(home, MaxVit):
        parts["blocks"] = nn.Sequential(*parts["blocks"])  # type: ignore[misc]  # a list of modules
    if FAMILIES[type(home).__name__].layout == "BD":
        parts |= _pooled(home)
    chain = nn.Sequential()
    for name, part in parts.items():
        chain.add_module(name, part)
    return chain


def _pooled(home: nn.Module) -> dict[str, nn.Module]:
    """Return the pooling and all of the classifier but its last layer."""
    classifier: Any = home.classifier
    pool = {"avgpool": home.avgpool} if hasattr(home, "avgpool") else {}
    flatten = {} if any(isinstance(part, nn.Flatten) for part in classifier) else {"flatten": nn.Flatten(1)}
    return {**pool, **flatten, "classifier": classifier[:-1]}


class Tokens(nn.Module):
    """A vision transformer of torchvision that returns all tokens ``(batch, 1 + patches, dim)``, the class token first."""

    def __init__(self, home: VisionTransformer) -> None:
        super().__init__()
        self.image_size, self.patch_size = home.image_size, home.patch_size
        self.class_token = home.class_token
        self.conv_proj = home.conv_proj
        self.encoder = home.encoder

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised tokens of the last block."""
        x = self.conv_proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        tokens: Tensor = self.encoder(x)
        return tokens


class TransformInput(nn.Module):
    """Turns images normalised by ImageNet's mean and standard deviation into those normalised by 0.5 and 0.5.

    torchvision does so inside its pretrained GoogLeNet and Inception v3. Other numbers of channels are normalised as zoo declares
    them: one by the means of the three, more by the three in turn.
    """

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        self.mean = (sum(MEAN) / 3,) if in_chans == 1 else tuple(MEAN[i % 3] for i in range(in_chans))
        self.std = (sum(STD) / 3,) if in_chans == 1 else tuple(STD[i % 3] for i in range(in_chans))

    def forward(self, x: Tensor) -> Tensor:
        """Return the images in their other range."""
        channels = zip(torch.unbind(x, dim=1), self.mean, self.std, strict=True)
        return torch.stack([channel * (std / 0.5) + (mean - 0.5) / 0.5 for channel, mean, std in channels], dim=1)
