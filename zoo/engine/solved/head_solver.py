"""The optimum of a linear layer on fixed features, with an L2 penalty chosen by cross-validation.

The problem is convex for the losses of the tasks, so nothing of it is left to a learning rate or a number of epochs. Features are
centred and divided by the root of their standard deviation (Pareto scaling, van den Berg et al. 2006): that lies between leaving them
as they are and standardizing them, where features that hardly vary would count as much as all others. On their principal axes a
diagonal scale then makes the problem nearly round: L-BFGS (Liu & Nocedal 1989) needs few iterations, and with fewer samples than
features there are only as many unknowns as samples.

The penalties are tried from the strongest down, each from the solution before it (Friedman et al. 2010), until the held-out loss
rises. Of those whose loss is within one standard error of the lowest the strongest is taken (Breiman et al. 1984), because accuracy
suffers less from too strong a penalty than the loss does, and the lowest loss of few samples is chance. Where each output has a loss of
its own, it has a penalty of its own: a rare label needs a stronger one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Folds = Sequence[tuple[Rows, Rows]]
Loss = Callable[[Tensor, Rows], Tensor]
"""From logits ``(rows, outputs)`` and the indices of their rows to the sum of their losses."""

STRONGEST, WEAKEST, PER_DECADE = 1e4, 1e-3, 2
WITHOUT_FOLDS = 10.0  # the penalty where nothing can be held out; see docs/defaults.md
RISES = 2  # penalties in a row without a lower held-out loss, after which no weaker one is tried
EXACT, ROUGH = 2e-3, 2e-2  # largest gradient at the optimum and in a fold, times the root of the number of rows
CURVATURE = 0.25  # of a binary cross entropy at most; scales the axes
HISTORY, LINE_SEARCH = 20, "strong_wolfe"
BLOCK = 2**21  # values of the features that are computed with in float64 at a time


@dataclass(frozen=True)
class Solution:
    """The optimum.

    Attributes:
        weight: ``(outputs, features)``.
        bias: ``(outputs,)``, or None.
        penalty: Weight of half the squared weights of scaled features, beside the sum of the losses; of several, the geometric mean.
        loss: Sum of the training losses.
        held_out: Logits ``(samples, outputs)`` of each sample by the layer of the fold that held it out, NaN where none did; or None.
    """

    weight: Tensor
    bias: Tensor | None
    penalty: float
    loss: float
    held_out: Tensor | None = None


def peak_bytes(samples: int, dim: int, outputs: int) -> int:
    """Return the most memory that ``solve`` takes with its features, in bytes; at most a few times too much.

    The features count twice, as they are gathered from batches. Beside them are their values on the axes, those of a fold, several
    copies of the logits and targets, the history of L-BFGS, and the matrices of which the axes are the eigenvectors.
    """
    axes = min(samples, dim)
    matrices = 8 * (4 * axes**2 + 2 * dim * axes + 4 * BLOCK) + (16 * samples * dim if samples < dim else 0)
    rows = 8 * samples * dim + 8 * samples * axes + 4 * 8 * samples * outputs
    return rows + matrices + 4 * (2 * HISTORY + 10) * (axes + 1) * outputs


class Axes:
    """Features on their principal axes.

    Args:
        features: ``(samples, features)``, finite.
        centred: Whether their mean is subtracted, which needs a bias to be undone.
    """

    def __init__(self, features: Tensor, *, centred: bool) -> None:
        count, dim = features.shape
        size = max(1, BLOCK // dim)
        mean = _total(part.double().sum(0) for part in torch.split(features, size)) / count
        std = (_total((part.double() - mean).pow(2).sum(0) for part in torch.split(features, size)) / count).sqrt()
        typical = std.pow(2).mean().sqrt()
        self._mean = mean if centred else torch.zeros_like(mean)
        # A feature that is constant but for rounding gets no weight.
        self._scale = torch.where(std > 1e-5 * mean.abs() + 1e-30, (std * typical).sqrt(), torch.inf)
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


def solve(
    features: Tensor,
    outputs: int,
    loss: Loss,
    folds: Folds,
    *,
    device: torch.device,
    bias: bool = True,
    penalty: float | None = None,
    by_output: Loss | None = None,
    held_out: bool = False,
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
        penalty: The penalty, where it was chosen before; ``folds`` are then not used.
        by_output: The losses ``(outputs,)`` whose sum is ``loss``, where each output has a loss of its own; it then gets a penalty of its
            own. None takes one for all.
        held_out: Whether the solution has logits of held-out samples, if there are folds.
        poll: Called between two solutions; may raise to stop.
    """
    axes = Axes(features, centred=bias).to(device)
    everything = np.arange(len(features))
    chosen = torch.tensor([WITHOUT_FOLDS if penalty is None else penalty], dtype=torch.float64)
    if folds and penalty is None:
        chosen = _chosen(axes, outputs, loss, by_output or _single(loss), folds, bias=bias, poll=poll)
    solution = _optimum(axes, everything, outputs, loss, chosen, bias=bias, tolerance=EXACT, iterations=500)
    with torch.no_grad():
        total = float(loss(axes.rows @ solution[:-1] + solution[-1], everything))
    weight, shift = axes.undo(solution, bias=bias)
    unseen = _held_out(axes, outputs, loss, folds, chosen, bias=bias, poll=poll) if held_out and folds else None
    strength = float(chosen) if len(chosen) == 1 else float(chosen.log().mean().exp())
    return Solution(weight, shift, strength, total, unseen)


def held_out_logits(
    features: Tensor,
    outputs: int,
    loss: Loss,
    folds: Folds,
    *,
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
) -> tuple[Tensor, float]:
    """Return what linear layers predict for samples that they were not fitted on, and the penalty, which ``solve`` would choose.

    One penalty is chosen for all folds by their held-out losses; a single number makes these hardly too optimistic.

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
    chosen = _chosen(axes, outputs, loss, _single(loss), folds, bias=True, poll=poll)
    return _held_out(axes, outputs, loss, folds, chosen, bias=True, poll=poll), float(chosen)


def lowest_held_out_loss(
    features: Tensor,
    outputs: int,
    loss: Loss,
    folds: Folds,
    *,
    device: torch.device,
    poll: Callable[[], None] = lambda: None,
) -> float:
    """Return the mean loss of held-out samples at the penalty where it is lowest.

    The penalty that ``solve`` would choose is stronger by up to one standard error, which makes its loss no measure of the features.

    Args:
        features: As for ``solve``.
        outputs: As for ``solve``.
        loss: As for ``solve``.
        folds: Training and held-out rows, at least two.
        device: As for ``solve``.
        poll: As for ``solve``.
    """
    axes = Axes(features, centred=True).to(device)
    return float(_held_out_losses(axes, outputs, loss, _single(loss), folds, bias=True, poll=poll)[1].min())


def _single(loss: Loss) -> Loss:
    """Return the losses ``(1,)`` of outputs that share one loss."""
    return lambda logits, rows: loss(logits, rows)[None]


def _held_out(axes: Axes, outputs: int, loss: Loss, folds: Folds, penalty: Tensor, *, bias: bool, poll: Callable[[], None]) -> Tensor:
    """Return the logits of each row from the fold that held it out, on the CPU."""
    found = torch.full((len(axes.rows), outputs), torch.nan)
    for train, held in folds:
        poll()
        solution = _optimum(axes, train, outputs, loss, penalty, bias=bias, tolerance=ROUGH, iterations=500)
        found[torch.from_numpy(held)] = (axes.rows[held] @ solution[:-1] + solution[-1]).cpu()
    return found


def _chosen(axes: Axes, outputs: int, loss: Loss, by_output: Loss, folds: Folds, *, bias: bool, poll: Callable[[], None]) -> Tensor:
    """Return the strongest penalties whose held-out loss is within one standard error of the lowest: one, or one per output."""
    tried, means, errors = _held_out_losses(axes, outputs, loss, by_output, folds, bias=bias, poll=poll)
    lowest = np.argmin(means, axis=0)[None]
    bounds = np.take_along_axis(means, lowest, 0) + np.take_along_axis(errors, lowest, 0)
    return torch.from_numpy(tried)[torch.from_numpy(np.argmax(means <= bounds, axis=0))]


def _held_out_losses(
    axes: Axes, outputs: int, loss: Loss, by_output: Loss, folds: Folds, *, bias: bool, poll: Callable[[], None]
) -> tuple[Array, Array, Array]:
    """Return penalties, the strongest first, with their mean held-out losses and the standard errors of these, ``(penalties, outputs)``."""
    sizes = np.array([[len(held)] for _, held in folds])
    starts: list[Tensor | None] = [None] * len(folds)
    tried, means, errors = list[float](), list[Array](), list[Array]()  # penalties, mean held-out losses, their standard errors
    rises: Array = np.zeros(1, dtype=int)
    for penalty in np.geomspace(STRONGEST, WEAKEST, int(np.log10(STRONGEST / WEAKEST) * PER_DECADE) + 1):
        sums = []
        strength = torch.tensor([penalty])
        for number, (train, held) in enumerate(folds):
            poll()
            start = starts[number] = _optimum(
                axes, train, outputs, loss, strength, bias=bias, tolerance=ROUGH, iterations=100, start=starts[number]
            )
            with torch.no_grad():
                sums.append(by_output(axes.rows[held] @ start[:-1] + start[-1], held).double().cpu().numpy())
        # An output that has risen takes no weaker penalty, whatever its loss does while others go on.
        mean = np.where(rises < RISES, np.sum(sums, axis=0) / sizes.sum(), np.inf)
        rises = np.where((rises >= RISES) | (mean >= np.min(means, axis=0, initial=np.inf)), rises + 1, 0)
        tried.append(float(penalty))
        means.append(mean)
        errors.append((np.stack(sums) / sizes).std(0, ddof=1) / len(folds) ** 0.5)
        if (rises >= RISES).all():
            break
    return np.array(tried), np.stack(means), np.stack(errors)


def _optimum(
    axes: Axes,
    rows: Rows,
    outputs: int,
    loss: Loss,
    penalty: Tensor,
    *,
    bias: bool,
    tolerance: float,
    iterations: int,
    start: Tensor | None = None,
) -> Tensor:
    """Return the solution ``(axes + 1, outputs)`` for some of the rows, with one penalty or one per output; the last row is the bias."""
    device = axes.rows.device
    curvature = CURVATURE * axes.singular[:, None] ** 2 * (len(rows) / len(axes.rows))
    scale = (curvature + penalty.to(curvature.device)).rsqrt().float().to(device)
    features = axes.rows if len(rows) == len(axes.rows) else axes.rows[torch.from_numpy(rows).to(device)]
    weights = penalty.float().to(device) * scale**2
    found = torch.zeros(len(scale) + 1, outputs, device=device)
    if start is not None:
        found.copy_(torch.cat([start[:-1] / scale, start[-1:]]))
    found.requires_grad_()
    # The distance of the sum of the losses to its minimum goes with the square of its gradient: it must not grow with the rows.
    precision = {"tolerance_grad": tolerance / len(rows) ** 0.5, "tolerance_change": 1e-9}
    optimizer = torch.optim.LBFGS([found], max_iter=iterations, **precision, history_size=HISTORY, line_search_fn=LINE_SEARCH)

    def value() -> Tensor:
        optimizer.zero_grad()
        logits = features @ (found[:-1] * scale)  # scaling the features would be a copy of them
        total = loss(logits + found[-1] if bias else logits, rows) + (weights * found[:-1] ** 2).sum() / 2
        mean: Tensor = total / len(rows)
        mean.backward()  # type: ignore[no-untyped-call]  # torch's own method has no types
        return mean

    optimizer.step(value)  # type: ignore[no-untyped-call]  # the same
    solution = found.detach()
    return torch.cat([solution[:-1] * scale, solution[-1:]])
