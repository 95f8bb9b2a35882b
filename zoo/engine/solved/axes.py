"""Features on their principal axes, on which a diagonal scale makes the problem of a linear layer nearly round."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor

BLOCK = 2**21  # values of the features that are computed with in float64 at a time


class Axes:
    """Features on their principal axes, centred and divided by the root of their standard deviation, or by the deviation itself.

    The root (Pareto scaling, van den Berg et al. 2006) lies between leaving features as they are and standardizing them, where
    features that hardly vary count as much as all others. With fewer samples than features there are as many axes as samples.

    Args:
        features: ``(samples, features)``, finite.
        centred: Whether their mean is subtracted, which needs a bias to be undone.
        standardized: Whether features are divided by their standard deviation.

    Attributes:
        rows: The samples on the axes, ``(samples, axes)`` float32.
        singular: The root of the sum of squares along each axis, ascending, float64.
        standardized: Whether features were divided by their standard deviation.
    """

    def __init__(self, features: Tensor, *, centred: bool, standardized: bool = False) -> None:
        self.standardized = standardized
        count, dim = features.shape
        size = max(1, BLOCK // dim)
        mean = _total(part.double().sum(0) for part in torch.split(features, size)) / count
        std = (_total((part.double() - mean).pow(2).sum(0) for part in torch.split(features, size)) / count).sqrt()
        typical = std.pow(2).mean().sqrt()
        self._mean = mean if centred else torch.zeros_like(mean)
        # A feature that is constant but for rounding gets no weight, nor one that standardization would blow up out of nothing.
        least = 1e-5 * (torch.maximum(mean.abs(), typical) if standardized else mean.abs()) + 1e-30
        self._scale = torch.where(std > least, std if standardized else (std * typical).sqrt(), torch.inf)
        if count < dim:
            rows = self._scaled(features)
            squares, left = torch.linalg.eigh(rows @ rows.T)
            kept = squares > 1e-10 * squares[-1].clamp(min=1e-30)
            self.singular = squares[kept].sqrt()
            self._rotation = rows.T @ (left[:, kept] / self.singular)
        else:
            scaled = map(self._scaled, torch.split(features, size))
            squares, right = torch.linalg.eigh(_total(part.T @ part for part in scaled))
            kept = squares > 1e-10 * squares[-1].clamp(min=1e-30)
            self.singular, self._rotation = squares[kept].sqrt(), right[:, kept]
        self.rows = torch.empty(count, len(self.singular), device=features.device)
        for part, found in zip(torch.split(features, size), torch.split(self.rows, size), strict=True):
            found.copy_(self._scaled(part) @ self._rotation)

    def _scaled(self, features: Tensor) -> Tensor:
        return (features.double() - self._mean) / self._scale

    def to(self, device: torch.device) -> Axes:
        """Move the rows to a device, in place."""
        self.rows = self.rows.to(device)
        return self

    def undo(self, solution: Tensor, *, bias: bool) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias for the features as they were, of a solution ``(axes + 1, outputs)``."""
        found = solution.to(self._rotation.device).double()
        weight = (self._rotation @ found[:-1]) / self._scale[:, None]
        shift = found[-1] - self._mean @ weight
        return weight.T.float(), shift.float() if bias else None


def _total(parts: Iterable[Tensor]) -> Tensor:
    """Return the sum of one tensor or more, of which two exist at a time."""
    return functools.reduce(torch.add, parts)
