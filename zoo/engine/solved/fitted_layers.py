"""Linear layers on the same features, each the optimum for rows of its own, such as those of the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.engine.solved.axes import Axes

Rows = npt.NDArray[np.int64]
Loss = Callable[[Tensor, Rows], Tensor]
"""From logits ``(rows, outputs)`` and the indices of their rows to the sum of their losses."""

CURVATURE = 0.25  # of a binary cross entropy at most; scales the axes
HISTORY = 10  # steps that are remembered
ITERATIONS, TRIALS = 300, 10  # at most, of a fit and of a line search
ROUNDING = 1e-6  # cosine of a step and the change of the gradient, below which that is rounding
OVERSHOOT = 0.2  # largest slope at the end of a step, as a share of the slope at its start


class Step(NamedTuple):
    """A step of the past.

    Attributes:
        by: The change of the weights, ``(axes + 1, layers, outputs)``.
        change: That of the gradient, likewise.
        weight: One over their product, ``(1, layers, 1)``; zero for a layer that did not move by more than rounding.
    """

    by: Tensor
    change: Tensor
    weight: Tensor

    @classmethod
    def between(cls, by: Tensor, change: Tensor) -> Step:
        """Return a step from the two changes."""
        product = _dot(by, change)
        real = product > ROUNDING * _dot(by, by).sqrt() * _dot(change, change).sqrt()
        return cls(by, change, torch.where(real, 1 / product, 0.0))

    def stiffened(self, penalty: Tensor) -> Step:
        """Return the step under a penalty that is stronger by so much; it is quadratic, so this is exact."""
        change = self.change.clone()
        change[:-1] += penalty * self.by[:-1]
        return self.between(self.by, change)


class FittedLayers:
    """Linear layers that are fitted side by side, by one L-BFGS (Liu & Nocedal 1989).

    Their logits are one product with the features, into which the time of large problems goes; those of small ones share the overhead
    of each operation. Logits are linear along a direction, so a line search takes no further product. It needs no value of the loss: as
    that is convex, a step has lowered it where the slope at its end is not far above zero.

    A further fit, with another penalty, starts from the solution before it (Friedman et al. 2010) and from its history.

    Args:
        axes: The features.
        parts: For each layer the rows that it is fitted on.
        outputs: Number of outputs of each layer.
        loss: The loss; differentiable and convex.
        bias: Whether the layers have a bias.
        start: A solution ``(axes + 1, layers, outputs)`` to start from; None is zero.

    Attributes:
        weight: The solution, ``(axes + 1, layers, outputs)``; the last row is the bias.
        excess: Largest gradient of any layer at the end of the last fit, as a multiple of the tolerance; above 1 it did not converge.
    """

    def __init__(self, axes: Axes, parts: Sequence[Rows], outputs: int, loss: Loss, *, bias: bool, start: Tensor | None = None) -> None:
        device, layers = axes.rows.device, len(parts)
        self._rows, self._loss, self._bias = axes.rows, loss, bias
        self._shape = (len(axes.rows), layers, outputs)
        self._index = np.concatenate(parts)
        self._place = torch.from_numpy(np.concatenate([part * layers + number for number, part in enumerate(parts)])).to(device)
        self._counts = torch.tensor([float(len(part)) for part in parts], device=device)[:, None]
        self._squares = axes.singular.float().to(device)[:, None, None] ** 2 * (self._counts / len(axes.rows))
        self._penalty, self._steps, self.excess = torch.zeros(1, device=device), list[Step](), 0.0
        self.weight = torch.zeros(len(axes.singular) + 1, layers, outputs, device=device) if start is None else start

    def fit(self, penalty: Tensor, *, tolerance: float) -> Tensor:
        """Find the optimum at a penalty, in place, and return its logits of all rows, ``(rows, layers, outputs)``.

        After ``ITERATIONS`` it ends where it is; ``excess`` then says how far from the tolerance.

        Args:
            penalty: Weight of half the squared weights beside the sum of the losses, ``(1,)`` or ``(outputs,)``.
            tolerance: Largest gradient of the mean loss by a weight of a rounded axis, times the root of the number of rows.
        """
        penalty = penalty.float().to(self.weight.device)
        self._steps = [step.stiffened(penalty - self._penalty) for step in self._steps]
        self._penalty = penalty
        inverse = torch.cat([(CURVATURE * self._squares + penalty).expand_as(self.weight[:-1]), self._bias_curvature()]).reciprocal()
        bound = tolerance * self._counts.sqrt()
        logits = self._product(self.weight)
        gradient = self._gradient(self._by_logits(logits))
        for iteration in range(ITERATIONS + 1):
            excess = (gradient.abs() * inverse.sqrt()).amax((0, 2))[:, None] / bound
            going = excess > 1
            if iteration == ITERATIONS or not going.any():
                self.excess = float(excess.max())
                break
            direction = self._direction(gradient, inverse) * going
            along = self._product(direction)
            length, by_logits = self._line_search(logits, gradient, direction, along)
            by = length * direction
            self.weight, logits = self.weight + by, logits + length * along
            before, gradient = gradient, self._gradient(by_logits)
            self._steps = [*self._steps[1 - HISTORY :], Step.between(by, gradient - before)]
        return logits

    def _line_search(self, logits: Tensor, gradient: Tensor, direction: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
        """Return the length of each layer's step, ``(1, layers, 1)``, and the gradient by the logits at its end.

        A step that goes too far is cut to where a line through the slopes at its ends is zero.
        """
        first = _dot(gradient, direction)
        rise, bend = (_dot(self._penalty * one[:-1], direction[:-1]) for one in (self.weight, direction))
        length = torch.ones_like(first)
        for _ in range(TRIALS):
            by_logits = self._by_logits(logits + length * along)
            slope = _dot(by_logits, along) + rise + length * bend
            too_far = slope > -OVERSHOOT * first
            if not too_far.any():
                break
            length = torch.where(too_far, length * (first / (first - slope)).clamp(0.1, 0.9), length)
        else:
            by_logits = self._by_logits(logits + length * along)  # at the last cut, which nothing tried
        return length, by_logits

    def _direction(self, gradient: Tensor, inverse: Tensor) -> Tensor:
        """Return the direction of descent that the history gives (Nocedal & Wright 2006, algorithm 7.4)."""
        found, shares = -gradient, list[Tensor]()
        for step in reversed(self._steps):
            shares.append(_dot(step.by, found) * step.weight)
            found = found - shares[-1] * step.change
        found = found * inverse
        for step in self._steps:
            found = found + (shares.pop() - _dot(step.change, found) * step.weight) * step.by
        return found

    def _product(self, weight: Tensor) -> Tensor:
        rows, layers, outputs = self._shape
        found = (self._rows @ weight[:-1].reshape(self._rows.shape[1], layers * outputs)).view(rows, layers, outputs)
        return found + weight[-1] if self._bias else found

    def _by_logits(self, logits: Tensor) -> Tensor:
        """Return the gradient of the sum of all losses by the logits, zero for rows that a layer is not fitted on."""
        flat = logits.reshape(-1, self._shape[2])
        with torch.enable_grad():
            own = flat[self._place].requires_grad_()
            (found,) = torch.autograd.grad(self._loss(own, self._index), own)
        return torch.zeros_like(flat).index_copy_(0, self._place, found).view(self._shape)

    def _gradient(self, by_logits: Tensor) -> Tensor:
        rows, layers, outputs = self._shape
        found = torch.zeros_like(self.weight)
        by_weight = self._rows.T @ by_logits.view(rows, layers * outputs)
        found[:-1] = by_weight.view(found[:-1].shape) + self._penalty * self.weight[:-1]
        if self._bias:
            found[-1] = by_logits.sum(0)
        return found

    def _bias_curvature(self) -> Tensor:
        return (CURVATURE * self._counts).expand_as(self.weight[-1:])


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return the product of each layer, ``(1, layers, 1)``."""
    return (one * other).sum((0, 2), keepdim=True)
