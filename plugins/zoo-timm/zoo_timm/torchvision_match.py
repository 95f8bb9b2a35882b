"""Comparison of a timm model with torchvision's network of the same tensors, in what shapes alone do not tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]


class Settings(NamedTuple):
    """What all networks of a class of torchvision have in common.

    Attributes:
        epsilon: That of their norms.
        activations: The classes of their activations.
        stride: Pixels between two positions of the last map, where convolutions alone make it; 0 where they do not.
    """

    epsilon: float
    activations: frozenset[str]
    stride: int = 0


SETTINGS = {
    "VisionTransformer": Settings(1e-6, frozenset({"GELU"})),
    "ConvNeXt": Settings(1e-6, frozenset({"GELU"}), 32),
    "SwinTransformer": Settings(1e-5, frozenset({"GELU"})),
    "SwinTransformerV2": Settings(1e-5, frozenset({"GELU", "ReLU"})),  # that of its table of positions
    "MobileNetV2": Settings(1e-5, frozenset({"ReLU6"}), 32),
    "MNASNet": Settings(1e-5, frozenset({"ReLU"}), 32),
    "EfficientNet": Settings(1e-5, frozenset({"SiLU"}), 32),
}
GATES = {"Sigmoid", "Softmax"}
HEADS = {768: 12, 1024: 16, 1280: 16}  # of torchvision's vision transformers, by their width
BUFFERS = ("relative_position_index", "relative_coords_table")  # that both libraries compute
CLASSIFIERS = ("head.weight", "head.bias", "head.fc.", "heads.")
STEMS = {"patch_embed.proj.weight", "stem.0.weight"}  # their input channels may differ


def set_alike(family: str, module: nn.Module) -> bool:
    """Return whether norms, activations, padding and strides of a timm model are those of a class of torchvision."""
    settings = SETTINGS.get(family)
    parts = list(module.modules())
    norms = [part.eps for part in parts if isinstance(part, nn.LayerNorm | nn.modules.batchnorm._BatchNorm)]
    activations = {type(part).__name__ for part in parts if type(part).__module__.endswith(("modules.activation", "layers.activations"))}
    odd = any(type(part).__name__.endswith("Same") or type(part).__name__.startswith("BlurPool") for part in parts)
    if settings is None or odd or {*norms} != {settings.epsilon} or activations - GATES != settings.activations:
        return False
    convolutions = [part for part in parts if isinstance(part, nn.Conv2d)]
    strides = math.prod(part.stride[0] for part in convolutions)
    return settings.stride in (0, strides) and all(part.dilation == (1, 1) for part in convolutions)


def computes_alike(family: str, state: State, module: nn.Module) -> bool:
    """Return whether a timm model computes what torchvision's network computes with a checkpoint.

    Args:
        family: torchvision's class.
        state: torchvision's tensors under timm's names, with those that both libraries compute.
        module: timm's model.
    """
    own = module.state_dict()
    known = all(key in own or key.endswith(BUFFERS) or key.startswith(CLASSIFIERS) for key in state)
    shaped = all(key in state and _same_shape(key, state[key], tensor) for key, tensor in own.items())
    special = {"VisionTransformer": _vit, "SwinTransformer": _swin, "SwinTransformerV2": _swin}.get(family)
    return known and shaped and set_alike(family, module) and (special is None or special(state, module))


def _same_shape(key: str, value: Tensor, tensor: Tensor) -> bool:
    if key == "pos_embed":  # resampled to another image size
        return value.shape[-1] == tensor.shape[-1]
    if key in STEMS:
        return value.ndim == tensor.ndim and value.shape[0] == tensor.shape[0] and value.shape[2:] == tensor.shape[2:]
    return value.shape == tensor.shape


def _vit(state: State, module: Any) -> bool:
    """Return whether heads, class token and positions of a vision transformer are used alike; no tensor tells the number of heads."""
    width = state["cls_token"].shape[-1]
    heads = {block.attn.num_heads for block in module.blocks}
    square = math.isqrt(state["pos_embed"].shape[1] - 1) ** 2 == state["pos_embed"].shape[1] - 1
    return square and not module.no_embed_class and heads == {HEADS.get(width, *heads)}


def _swin(state: State, module: nn.Module) -> bool:
    """Return whether each attention has torchvision's window, which the index of its positions tells, and scale of positions."""
    for name, part in module.named_modules():
        own = getattr(part, "relative_position_index", None)
        if own is None:
            continue
        index = state.get(f"{name}.relative_position_index")
        if index is None or index.numel() != own.numel() or not torch.equal(index.flatten(), own.flatten()):
            return False
        if any(getattr(part, "pretrained_window_size", ())):
            return False
    return True
