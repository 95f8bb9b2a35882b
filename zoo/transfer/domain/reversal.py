"""Gradient reversal with a warm start (Ganin et al. 2016)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def grl_coefficient(step: int, steps: int, *, alpha: float = 1.0, low: float = 0.0, high: float = 1.0) -> float:
    """Return the strength of the reversal after so many steps, which rises from ``low`` towards ``high``.

    Args:
        step: Steps done, at least 0.
        steps: Steps of the schedule, at least 1.
        alpha: Steepness; the paper's is 10, with which nearly ``high`` is reached at the end.
        low: At the first step.
        high: The limit.
    """
    return 2 * (high - low) / (1 + math.exp(-alpha * step / steps)) - (high - low) + low


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse(rows: Tensor, strength: float) -> Tensor:
    """Return equal values whose gradient is multiplied by ``-strength``."""
    reversed_rows: Tensor = _Reversed.apply(rows, strength)
    return reversed_rows
