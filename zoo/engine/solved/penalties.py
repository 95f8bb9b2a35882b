"""The penalty of a linear layer, chosen by the losses of held-out samples.

The penalties are tried from the strongest down until the held-out loss rises. Of those whose loss is within one standard error of the
lowest the strongest is taken (Breiman et al. 1984), because accuracy suffers less from too strong a penalty than the loss does, and the
lowest loss of few samples is chance; for numbers, and where one class is far commoner than the others, the penalty of the lowest loss
is taken. Where each output has a loss of its own, it has a penalty of its own: a rare label needs a stronger one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.engine.solved.axes import Axes
from zoo.engine.solved.fitted_layers import ITERATIONS, FittedLayers, Loss, Rows
from zoo.tasks.task import Task

Array = npt.NDArray[Any]
Folds = Sequence[tuple[Rows, Rows]]

PENALTIES = tuple(10.0**power for power in range(4, -4, -1))
FINE = tuple(10.0 ** (power / 4) for power in range(16, -13, -1))  # where the lowest loss itself is the figure
ROUGH = 5e-3  # tolerance of the layers of folds
TOGETHER = 2**24  # logits up to which the layers of all folds are fitted side by side
log = logging.getLogger("zoo")


@dataclass(frozen=True)
class HeldOut:
    """What the layers of folds say about the samples that they were not fitted on, at each penalty that was tried.

    Attributes:
        penalties: The strongest first.
        means: Mean held-out losses, ``(penalties, outputs)``, or ``(penalties, 1)`` of outputs that share one loss; infinite for a
            penalty that was not tried for an output.
        errors: Standard errors of these, over folds.
        logits: Logits of held-out samples, ``(penalties, samples, outputs)``, NaN for a sample that no fold holds out.
        weights: Mean weights of the folds, ``(penalties, axes + 1, outputs)``.
        margin: Standard errors by which the held-out loss of the chosen penalty may exceed the lowest.
        unfinished: Penalties at which layers did not reach their optimum, with the gradient that was left as a multiple of the tolerance.
    """

    penalties: Array
    means: Array
    errors: Array
    logits: Tensor
    weights: Tensor
    margin: float = 1.0
    unfinished: Mapping[float, float] = field(default_factory=dict)

    @property
    def lowest(self) -> tuple[float, float]:
        """Lowest held-out loss and its standard error, as a mean over outputs that have losses of their own."""
        at = np.argmin(self.means, axis=0)[None]
        loss, error = (float(np.take_along_axis(values, at, 0).mean()) for values in (self.means, self.errors))
        return loss, error

    @property
    def choice(self) -> Tensor:
        """Number of the strongest penalty whose loss is within the margin of the lowest, ``(outputs,)`` or ``(1,)``."""
        lowest = np.argmin(self.means, axis=0)[None]
        bounds = np.take_along_axis(self.means, lowest, 0) + self.margin * np.take_along_axis(self.errors, lowest, 0)
        return torch.from_numpy(np.argmax(self.means <= bounds, axis=0))

    @property
    def chosen(self) -> Tensor:
        """The penalties of ``choice``, float64."""
        return torch.from_numpy(self.penalties)[self.choice]

    def warn(self) -> None:
        """Log a warning where the layers of folds did not converge."""
        if self.unfinished:
            log.warning(
                "linear heads on folds of the samples did not converge in %d iterations at the penalties %s (gradient up to %.3g times the "
                "tolerance), so the penalty may not be the best: look for features far larger than the others, and scale or clip them",
                ITERATIONS,
                ", ".join(f"{penalty:g}" for penalty in self.unfinished),
                max(self.unfinished.values()),
            )

    def chosen_of(self, values: Tensor) -> Tensor:
        """Return what the chosen penalties have of ``logits`` or ``weights``, ``(samples or axes + 1, outputs)``."""
        outputs = values.shape[2]
        return values[self.choice.expand(outputs), :, torch.arange(outputs)].T


def margin_of(task: Task, targets: Array, *, weighted: bool = False) -> float:
    """Return the ``margin`` of the penalty of a head: one standard error, none for numbers and for unequal classes.

    The loss of numbers is what they are judged by. That of unequal classes is the loss of the commonest, so a penalty that is stronger by
    one error gives up the rare ones; docs/decisions/solved-heads.md has the evidence.

    Args:
        task: The task of the head.
        targets: Those of the training samples.
        weighted: Whether the loss has class weights, with which the commonest class no longer outweighs the others.
    """
    return 0.0 if task.standardized or (not weighted and task.is_skewed(targets)) else 1.0


def held_out(
    axes: Axes,
    outputs: int,
    loss: Loss,
    by_output: Loss | None,
    folds: Folds,
    *,
    bias: bool,
    poll: Callable[[], None],
    margin: float = 1.0,
    tried: Sequence[float] = PENALTIES,
) -> HeldOut:
    """Return the held-out losses of the penalties, until they rise.

    Args:
        axes: The features.
        outputs: Number of outputs.
        loss: The loss.
        by_output: The losses ``(outputs,)`` whose sum that is, where each output has one of its own; else None.
        folds: Training and held-out rows.
        bias: Whether the layers have a bias.
        poll: Called between two fits; may raise to stop.
        margin: See ``HeldOut``.
        tried: The penalties, the strongest first.
    """
    each = by_output or (lambda logits, rows: loss(logits, rows)[None])
    size = len(folds) if len(axes.rows) * outputs * len(folds) <= TOGETHER else 1
    parts = [folds[first : first + size] for first in range(0, len(folds), size)]
    fitted = [FittedLayers(axes, [train for train, _ in part], outputs, loss, bias=bias) for part in parts]
    sizes = np.array([[len(held)] for _, held in folds])
    means, errors, logits, weights = list[Array](), list[Array](), list[Tensor](), list[Tensor]()
    rising: Array = np.zeros(1, dtype=bool)
    unfinished: dict[float, float] = {}
    for penalty in tried:
        sums, unseen = [], torch.full((len(axes.rows), outputs), torch.nan)
        for part, layers in zip(parts, fitted, strict=True):
            poll()
            found = layers.fit(torch.tensor([penalty]), tolerance=ROUGH)
            if layers.excess > 1:
                unfinished[penalty] = max(layers.excess, unfinished.get(penalty, 0.0))
            for number, (_, held) in enumerate(part):
                own = found[torch.from_numpy(held).to(found.device), number]
                sums.append(each(own, held).double().cpu().numpy())
                unseen[torch.from_numpy(held)] = own.cpu()
        # An output that has risen takes no weaker penalty, whatever its loss does while others go on.
        mean = np.where(rising, np.inf, np.sum(sums, axis=0) / sizes.sum())
        rising = rising | (mean >= np.min(means, axis=0, initial=np.inf))
        means.append(mean)
        errors.append((np.stack(sums) / sizes).std(0, ddof=1) / len(folds) ** 0.5 if len(folds) > 1 else np.zeros_like(mean))
        logits.append(unseen)
        weights.append(torch.cat([layers.weight for layers in fitted], 1).mean(1))
        if rising.all():
            break
    losses = np.array(tried[: len(means)]), np.stack(means), np.stack(errors)
    return HeldOut(*losses, torch.stack(logits), torch.stack(weights), margin, unfinished)
