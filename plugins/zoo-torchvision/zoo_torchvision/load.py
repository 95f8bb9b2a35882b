"""Bringing torchvision's published checkpoints into the keys and shapes of a built backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings  # type: ignore[import-untyped]  # ships no types

# Names of older torchvision versions, in which some files are published, and today's.
OLDER = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # heads that only torchvision's own training uses


def convert(state_dict: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Return a checkpoint under today's names, without auxiliary heads, position embeddings resampled to the module's image size.

    Args:
        state_dict: Tensors as published.
        module: The backbone; its parameters may be without values.
    """
    state = {_renamed(key): tensor for key, tensor in state_dict.items() if not key.startswith(AUXILIARY)}
    return _resampled(state, module)


def resize(state: Mapping[str, Tensor], before: nn.Module, module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a saved model, position embeddings resampled to the image size of another build of it.

    Args:
        state: Tensors by the names of both modules.
        before: The model that they come from.
        module: The model to fill.
    """
    return _resampled(dict(state), module)


def _resampled(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Resample the position embeddings of a vision transformer by torchvision's rule; they are of square images."""
    positions = state.get("encoder.pos_embedding")
    if positions is None or not hasattr(module, "patch_size"):
        return state
    wanted = module.state_dict()["encoder.pos_embedding"].shape
    if positions.shape != wanted and positions.shape[-1] == wanted[-1]:
        return dict(interpolate_embeddings(module.image_size, module.patch_size, state))
    return state


def _renamed(key: str) -> str:
    for pattern, today in OLDER:
        key = pattern.sub(today, key)
    return key
