"""The optimum of a linear layer on fixed features, with an L2 penalty chosen by cross-validation.

The problem is convex for the losses of the tasks, so nothing of it is left to a learning rate or a number of epochs. Features are
centred and divided by the root of their standard deviation (Pareto scaling, van den Berg et al. 2006): that lies between leaving them
as they are and standardizing them, where features that hardly vary would count as much as all others. On their principal axes a
diagonal scale then makes the problem nearly round: L-BFGS (Liu & Nocedal 1989) needs few iterations, and with fewer samples than
features there are only as many unknowns as samples.

The penalties are tried from the strongest down, each from the solution before it (Friedman et al. 2010), until the held-out loss
rises. Of those whose loss is within one standard error of the lowest the strongest is taken (Breiman et al. 1984), because accuracy
suffers less from too strong a penalty than the loss does, and the lowest loss of few samples is chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Rows = npt.NDArray[np.int64]
Loss = Callable[[Tensor, Rows], Tensor]
"""From logits ``(rows, outputs)`` and the indices of their rows to the sum of their losses."""

STRONGEST, WEAKEST, PER_DECADE = 1e4, 1e-3, 2
WITHOUT_FOLDS = 10.0  # the penalty where nothing can be held out; see docs/defaults.md
RISES = 2  # penalties in a row without a lower held-out loss, after which no weaker one is tried
EXACT, ROUGH = 2e-3, 2e-2  # largest gradient at the optimum and in a fold, times the root of the number of rows
CURVATURE = 0.25  # of a binary cross entropy at most; scales the axes
HISTORY, LINE_SEARCH = 20, "strong_wolfe"


@dataclass(frozen=True)
class Solution:
    """The optimum.

    Attributes:
        weight: ``(outputs, features)``.
        bias: ``(outputs,)``, or None.
        penalty: Weight of half the squared weights of scaled features, beside the sum of the losses.
        loss: Sum of the training losses.
    """

    weight: Tensor
    bias: Tensor | None
    penalty: float
    loss: float


class Axes:
    """Features on their principal axes.

    Args:
        features: ``(samples, features)``, finite.
        centred: Whether their mean is subtracted, which needs a bias to be undone.
    """

    def __init__(self, features: Tensor, *, centred: bool) -> None:
        mean = features.mean(0, dtype=torch.float64)
        std = (features.double() - mean).pow(2).mean(0).sqrt()
        typical = std.pow(2).mean().sqrt()
        self._mean = mean if centred else torch.zeros_like(mean)
        # A feature that is constant but for rounding gets no weight.
        self._scale = torch.where(std > 1e-5 * mean.abs() + 1e-30, (std * typical).sqrt(), torch.inf)
        rows = (features.double() - self._mean) / self._scale
        if len(rows) < rows.shape[1]:
            squares, left = torch.linalg.eigh(rows @ rows.T)
            kept = squares > 1e-10 * squares[-1].clamp(min=1e-30)
            self.singular = squares[kept].sqrt()
            self._rotation = rows.T @ (left[:, kept] / self.singular)
        else:
            squares, right = torch.linalg.eigh(rows.T @ rows)
            kept = squares > 1e-10 * squares[-1].clamp(min=1e-30)
            self.singular, self._rotation = squares[kept].sqrt(), right[:, kept]
        self.rows = (rows @ self._rotation).float()

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


def solve(
    features: Tensor,
    outputs: int,
    loss: Loss,
    folds: Sequence[tuple[Rows, Rows]],
    *,
    device: torch.device,
    bias: bool = True,
    poll: Callable[[], None] = lambda: None,
) -> Solution:
    """Return the optimal linear layer.

    Args:
        features: ``(samples, features)``, finite, on a device with float64.
        outputs: Number of outputs.
        loss: The loss; differentiable, of float32 logits.
        folds: Training and held-out rows of the folds that choose the penalty; without any it is ``WITHOUT_FOLDS``.
        device: Where ``loss`` computes.
        bias: Whether the layer has a bias.
        poll: Called between two solutions; may raise to stop.
    """
    axes = Axes(features, centred=bias).to(device)
    everything = np.arange(len(features))
    penalty = _chosen(_tried(axes, outputs, loss, folds, bias=bias, poll=poll)).penalty if folds else WITHOUT_FOLDS
    solution = _optimum(axes, everything, outputs, loss, penalty, bias=bias, tolerance=EXACT, iterations=500)
    with torch.no_grad():
        total = float(loss(axes.rows @ solution[:-1] + solution[-1], everything))
    weight, shift = axes.undo(solution, bias=bias)
    return Solution(weight, shift, penalty, total)


def held_out_logits(
    features: Tensor,
    outputs: int,
    loss: Loss,
    folds: Sequence[tuple[Rows, Rows]],
    *,
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
) -> tuple[Tensor, float]:
    """Return what linear layers predict for the samples that they were not fitted on, and the penalty that ``solve`` would choose.

    One penalty is chosen for all folds, by the same held-out losses: a single number that hardly flatters them, for no further solution.

    Args:
        features: As for ``solve``.
        outputs: As for ``solve``.
        loss: As for ``solve``.
        folds: Training and held-out rows, at least two.
        device: As for ``solve``.
        poll: As for ``solve``.

    Returns:
        Logits ``(samples, outputs)`` on the CPU, NaN for a sample that no fold holds out, and the penalty.
    """
    axes = Axes(features, centred=True).to(device)
    best = _chosen(_tried(axes, outputs, loss, folds, bias=True, poll=poll))
    found = torch.full((len(features), outputs), torch.nan)
    for (_, held), logits in zip(folds, best.logits, strict=True):
        found[torch.from_numpy(held)] = logits.cpu()
    return found, best.penalty


class _Tried(NamedTuple):
    """A penalty, its mean held-out loss, the standard error of that over the folds, and the held-out logits of each fold."""

    penalty: float
    mean: float
    error: float
    logits: list[Tensor]


def _chosen(tried: Sequence[_Tried]) -> _Tried:
    """Return the strongest penalty whose held-out loss is within one standard error of the lowest."""
    lowest = min(tried, key=lambda each: each.mean)
    return next(each for each in tried if each.mean <= lowest.mean + lowest.error)


def _tried(
    axes: Axes, outputs: int, loss: Loss, folds: Sequence[tuple[Rows, Rows]], *, bias: bool, poll: Callable[[], None]
) -> list[_Tried]:
    """Try penalties from the strongest down, until the held-out loss rises."""
    sizes = np.array([len(held) for _, held in folds])
    starts: list[Tensor | None] = [None] * len(folds)
    tried: list[_Tried] = []
    rises, decades = 0, np.log10(STRONGEST / WEAKEST)
    for penalty in np.geomspace(STRONGEST, WEAKEST, int(decades * PER_DECADE) + 1):
        sums, logits = np.zeros(len(folds)), []
        for number, (train, held) in enumerate(folds):
            poll()
            start = starts[number] = _optimum(
                axes, train, outputs, loss, penalty, bias=bias, tolerance=ROUGH, iterations=100, start=starts[number]
            )
            with torch.no_grad():
                logits.append(axes.rows[held] @ start[:-1] + start[-1])
                sums[number] = float(loss(logits[-1], held))
        mean = sums.sum() / sizes.sum()
        rises = rises + 1 if tried and mean >= min(before.mean for before in tried) else 0
        tried.append(_Tried(float(penalty), mean, (sums / sizes).std(ddof=1) / len(folds) ** 0.5, logits))
        if rises == RISES:
            break
    return tried


def _optimum(
    axes: Axes,
    rows: Rows,
    outputs: int,
    loss: Loss,
    penalty: float,
    *,
    bias: bool,
    tolerance: float,
    iterations: int,
    start: Tensor | None = None,
) -> Tensor:
    """Return the solution ``(axes + 1, outputs)`` for some of the rows; the last row is the bias."""
    device = axes.rows.device
    scale = (CURVATURE * axes.singular**2 * (len(rows) / len(axes.rows)) + penalty).rsqrt().float()[:, None].to(device)
    features = axes.rows[torch.from_numpy(rows).to(device)] * scale.T
    weights = penalty * scale**2
    found = torch.zeros(len(scale) + 1, outputs, device=device)
    if start is not None:
        found.copy_(torch.cat([start[:-1] / scale, start[-1:]]))
    found.requires_grad_()
    # The distance of the sum of the losses to its minimum goes with the square of its gradient: it must not grow with the rows.
    precision = {"tolerance_grad": tolerance / len(rows) ** 0.5, "tolerance_change": 1e-9}
    optimizer = torch.optim.LBFGS([found], max_iter=iterations, **precision, history_size=HISTORY, line_search_fn=LINE_SEARCH)

    def value() -> Tensor:
        optimizer.zero_grad()
        logits = features @ found[:-1]
        total = loss(logits + found[-1] if bias else logits, rows) + (weights * found[:-1] ** 2).sum() / 2
        mean: Tensor = total / len(rows)
        mean.backward()  # type: ignore[no-untyped-call]  # torch's own method has no types
        return mean

    optimizer.step(value)  # type: ignore[no-untyped-call]  # the same
    solution = found.detach()
    return torch.cat([solution[:-1] * scale, solution[-1:]])
