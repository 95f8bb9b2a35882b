"""Outputs of layer groups as maps ``(batch, channels, *grid)``, whatever the backbone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zoo.declare import BackboneSpec, Features, Image, Inputs
from zoo.errors import LayerGroupError
from zoo.models.pooling import Pool
from zoo.tuning.blocks import first_tensor

_POOLS: Mapping[int, Callable[[Tensor, Any], Tensor]] = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}


def feature_map(output: Any, spec: BackboneSpec, inputs: Inputs, mask: Tensor | None = None) -> Tensor:
    """Return what a layer group gave as a map: channels first, tokens on the grid of their patches.

    Class tokens are left out. The tokens of a text have no grid: their mean over all that are not padding is ``(batch, channels)``.

    Args:
        output: The output of the group.
        spec: The declaration of the backbone.
        inputs: The input in use.
        mask: Of a text, ``(batch, tokens)`` with 0 for padding.

    Raises:
        LayerGroupError: If the group has no output with channels.
    """
    x = first_tensor(output)
    if x is None or x.ndim < 2:
        raise LayerGroupError(f"a layer group of {spec.name!r} has no output of shape (batch, channels, …); choose another one")
    if x.ndim == 3 and mask is not None:
        pooled: Tensor = Pool(Features(dim=x.shape[2], layout="BND", pool="avg"))(x, mask)
        return pooled
    if x.ndim == 3:
        tokens = x[:, spec.features.prefix_tokens :] if spec.features.layout == "BND" else x
        return tokens.transpose(1, 2).reshape(len(x), x.shape[2], *_grid(tokens.shape[1], inputs))
    return x.movedim(-1, 1) if x.ndim == 4 and spec.features.layout == "BHWC" else x


def _grid(tokens: int, inputs: Inputs) -> tuple[int, ...]:
    """Return the rows and columns of the patches of an image; one axis where they fit none."""
    if isinstance(inputs, Image):
        rows = max(1, round(math.sqrt(tokens * inputs.height / inputs.width)))
        if tokens % rows == 0:
            return rows, tokens // rows
    return (tokens,)


def common_grid(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """Return the finest grid that neither of two maps has to be enlarged to; none, ``()``, where their axes differ."""
    return tuple(map(min, one, other)) if len(one) == len(other) else ()


def on_grid(features: Tensor, grid: Sequence[int]) -> Tensor:
    """Return a map averaged to a grid, ``(batch, channels, *grid)``."""
    if tuple(features.shape[2:]) == tuple(grid):
        return features
    if not grid:
        return features.flatten(2).mean(2)
    return _POOLS[len(grid)](features, list(grid))


def mask_of(x: Any) -> Tensor | None:
    """Return the mask of the tokens of a text; None for other inputs."""
    return x.get("attention_mask") if isinstance(x, Mapping) else None


def project(layer: torch.nn.Module, features: Tensor) -> Tensor:
    """Return a map with its channels mapped by a linear layer, the same at each place."""
    projected: Tensor = layer(features.movedim(1, -1))
    return projected.movedim(-1, 1)
