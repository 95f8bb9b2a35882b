"""The optimum of a linear layer on fixed features, with an L2 penalty chosen by cross-validation.

The problem is convex for the losses of the tasks, so nothing of it is left to a learning rate or a number of epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.data.splits.folds import FOLDS
from zoo.engine.solved import fitted_layers, penalties
from zoo.engine.solved.axes import BLOCK, Axes
from zoo.engine.solved.fitted_layers import FittedLayers, Loss
from zoo.engine.solved.penalties import Folds, HeldOut

WITHOUT_FOLDS = 10.0  # the penalty where nothing can be held out; see docs/defaults.md
EXACT = 2e-3  # tolerance of the optimum
LEAST = 20  # samples from which folds tell scales apart; the standard errors of fewer are chance


@dataclass(frozen=True)
class Solution:
    """The optimum.

    Attributes:
        weight: ``(outputs, features)``.
        bias: ``(outputs,)``, or None.
        penalty: Weight of half the squared weights of scaled features, beside the sum of the losses; of several, the geometric mean.
        loss: Sum of the training losses.
        held_out: Logits ``(samples, outputs)`` of each sample by the layer of the fold that held it out, NaN where none did; or None.
        excess: Largest gradient that is left, as a multiple of the tolerance; above 1 the iterations ended before the optimum.
        standardized: Whether the scaled features are standardized ones, see ``Axes``.
    """

    weight: Tensor
    bias: Tensor | None
    penalty: float
    loss: float
    held_out: Tensor | None = None
    excess: float = 0.0
    standardized: bool = False


def peak_bytes(samples: int, dim: int, outputs: int) -> int:
    """Return the most memory that ``solve`` takes with its features, in bytes; at most a few times too much.

    The features count twice, as they are gathered from batches. Beside them are their values on the axes, the logits of all
    penalties, several copies of those of the layers that are fitted side by side, the history of these layers, and the matrices of
    which the axes are the eigenvectors. What two scales have, of which one is chosen, counts twice.
    """
    axes = min(samples, dim)
    matrices = 8 * (4 * axes**2 + 3 * dim * axes + 4 * BLOCK) + (16 * samples * dim if samples < dim else 0)
    logits = samples * outputs
    side_by_side = max(logits, min(penalties.TOGETHER, FOLDS * logits))
    weights = (2 * fitted_layers.HISTORY + 10) * FOLDS + 3 * len(penalties.PENALTIES)
    rows = 8 * samples * dim + 2 * 4 * samples * axes + 12 * len(penalties.PENALTIES) * logits + 4 * 10 * side_by_side
    return rows + matrices + 4 * weights * (axes + 1) * outputs


def solve(
    features: Tensor,
    outputs: int,
    loss: Loss,
    folds: Folds,
    *,
    device: torch.device,
    bias: bool = True,
    penalty: float | None = None,
    standardized: bool = False,
    by_output: Loss | None = None,
    held_out: bool = False,
    margin: float = 1.0,
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
        standardized: Whether features are standardized for this penalty; ``folds`` choose that too.
        by_output: The losses ``(outputs,)`` whose sum is ``loss``, where each output has a loss of its own; it then gets a penalty of its
            own. None takes one for all.
        held_out: Whether the solution has logits of held-out samples, where folds choose the penalty.
        margin: Standard errors by which the held-out loss of the penalty may exceed the lowest, see ``margin_of``.
        poll: Called between two solutions; may raise to stop.
    """
    everything = np.arange(len(features))
    chosen, start, unseen = torch.tensor([WITHOUT_FOLDS if penalty is None else penalty], dtype=torch.float64), None, None
    if not folds or penalty is not None:
        axes = Axes(features, centred=bias, standardized=standardized).to(device)
    else:
        axes, found = _on_best_scale(features, outputs, loss, by_output, folds, device=device, bias=bias, margin=margin, poll=poll)
        standardized = axes.standardized
        chosen, start = found.chosen, found.chosen_of(found.weights)[:, None]
        unseen = found.chosen_of(found.logits) if held_out else None
    layer = FittedLayers(axes, [everything], outputs, loss, bias=bias, start=start)
    logits = layer.fit(chosen, tolerance=EXACT)[:, 0]
    with torch.no_grad():
        total = float(loss(logits, everything))
    weight, shift = axes.undo(layer.weight[:, 0], bias=bias)
    mean = float(chosen.log().mean().exp()) if len(chosen) > 1 else float(chosen)
    return Solution(weight, shift, mean, total, unseen, layer.excess, standardized)


def _on_best_scale(
    features: Tensor,
    outputs: int,
    loss: Loss,
    by_output: Loss | None,
    folds: Folds,
    *,
    device: torch.device,
    bias: bool,
    margin: float,
    poll: Callable[[], None],
) -> tuple[Axes, HeldOut]:
    """Return features on their axes, and the held-out losses of the penalties there.

    They are standardized where that lowers the lowest held-out loss by more than its standard error, such as features whose
    deviations differ by orders of magnitude, and where there are ``LEAST`` samples; see docs/decisions/solved-heads.md.
    """

    def on_scale(*, standardized: bool) -> tuple[Axes, HeldOut]:
        axes = Axes(features, centred=bias, standardized=standardized).to(device)
        return axes, penalties.held_out(axes, outputs, loss, by_output, folds, bias=bias, margin=margin, poll=poll)

    axes, found = on_scale(standardized=False)
    if len(features) >= LEAST:
        other = on_scale(standardized=True)
        lowest, error = found.lowest
        axes, found = other if other[1].lowest[0] < lowest - error else (axes, found)
    found.warn()
    return axes, found


def held_out_logits(
    features: Tensor,
    outputs: int,
    loss: Loss,
    folds: Folds,
    *,
    device: torch.device,
    margin: float = 1.0,
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
        margin: As for ``solve``.
        poll: As for ``solve``.

    Returns:
        Logits ``(samples, outputs)`` on the CPU, NaN for a sample that no fold holds out, and the penalty.
    """
    _, found = _on_best_scale(features, outputs, loss, None, folds, device=device, bias=True, margin=margin, poll=poll)
    return found.chosen_of(found.logits), float(found.chosen)


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
    Penalties lie closer to each other here: of decades the lowest loss depends on where between two of them the best one lies.

    Args:
        features: As for ``solve``.
        outputs: As for ``solve``.
        loss: As for ``solve``.
        folds: Training and held-out rows, at least two.
        device: As for ``solve``.
        poll: As for ``solve``.
    """
    axes = Axes(features, centred=True).to(device)
    found = penalties.held_out(axes, outputs, loss, None, folds, bias=True, poll=poll, tried=penalties.FINE)
    found.warn()
    return float(found.means.min())
