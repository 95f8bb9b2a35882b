"""Formulas of the penalties on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zoo.errors import LayerGroupError
from zoo.tuning.blocks import first_tensor


def squared_distance(values: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor:
    """Return the sum of all squared differences of two lists of tensors (L2-SP, Li et al. 2018); gradients reach ``values``."""
    distance: Tensor = _SquaredDistance.apply(list(start), *values)
    return distance


def smallest_singular_values(features: Tensor, k: int = 1) -> Tensor:
    """Return the sum of the squares of the ``k`` smallest singular values of ``(batch, dim)`` (BSS, Chen et al. 2019)."""
    values: Tensor = torch.linalg.svdvals(features)
    return values[-k:].square().sum()


def mean_square(now: Any, before: Any, mask: Tensor | None, group: str) -> Tensor | None:
    """Return the mean squared distance of two outputs of a group (DELTA, Li et al. 2019).

    Args:
        now: Output of the group in training; a tensor, or nested tuples and mappings of which the first tensor is taken.
        before: Output of the group with its start values.
        mask: ``(batch, tokens)`` with 0 for padding, or None.
        group: Name of the group, for messages.

    Returns:
        The distance; None if no output has gradients.

    Raises:
        LayerGroupError: If the shapes differ.
    """
    one, two = first_tensor(now), first_tensor(before)
    if one is None or two is None or not one.requires_grad:
        return None
    if one.shape != two.shape:
        raise LayerGroupError(
            f"delta compares outputs of equal shape, and group {group!r} gave {tuple(one.shape)} in training and {tuple(two.shape)} "
            "in evaluation; leave delta at 0 for this backbone"
        )
    if mask is None or one.shape[:2] != mask.shape:
        return functional.mse_loss(one.float(), two.float())
    counts = mask.bool()
    # Masked, because selecting rows would wait for a GPU.
    rows = (one.float() - two.float()).flatten(2).masked_fill(~counts[..., None], 0.0)
    return rows.square().mean(2).sum() / counts.sum()


class _SquaredDistance(torch.autograd.Function):
    """The sum of squared differences, in a few multi-tensor calls, and without saving the differences."""

    @staticmethod
    def forward(ctx: Any, start: list[Tensor], *values: Tensor) -> Tensor:
        ctx.start = start
        ctx.save_for_backward(*values)
        norms = torch._foreach_norm(torch._foreach_sub(values, start), 2, torch.float32)
        return torch.stack(norms).square().sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        differences = torch._foreach_sub(ctx.saved_tensors, ctx.start)
        torch._foreach_mul_(differences, 2 * gradient)
        return None, *differences
