"""Learning-rate range test (Smith 2017): train briefly at rising rates and take one at which the loss falls."""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.optim.nonfinite import NonFiniteError
from zoo.engine.rundir.curves import empty_figure
from zoo.engine.runtime.rollback import as_before
from zoo.errors import TrainingError
from zoo.util.numbers import without_nan

LOW, HIGH, STEPS = 1e-6, 10.0, 100
# Share of the last mean that a new one keeps. fastai keeps 0.98, which lags half a test of 100 steps behind.
SMOOTHING = 0.95
# The test ends where the smoothed loss is this many times the lowest so far (fastai's number).
EXPLODED = 4.0
# A fall counts if it exceeds this share of the spread between batches. Of 300 simulated curves of pure noise nearly nine in
# ten were refused, of 300 that fall by two and a half times the spread none.
FALL = 0.7


class NoFallError(TrainingError):
    """The loss fell at no rate of a range test."""


@dataclass(frozen=True)
class RangeCurve:
    """The losses of a range test.

    Attributes:
        rates: Learning rates, rising.
        losses: The loss at each, before its step; the last may be infinite.
        smoothed: Their running means, without the bias of the first ones.
        suggestion: The rate to train with.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; a loss that is not finite as None."""
        return without_nan(asdict(self))  # type: ignore[no-any-return]  # a dict stays one


def range_test(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: Callable[[float], float],
    *,
    low: float = LOW,
    high: float = HIGH,
    steps: int = STEPS,
) -> RangeCurve:
    """Train for a few steps at rates that rise exponentially, undo all of it, and suggest a rate.

    The model's parameters, buffers, gradients and modes, the optimizer and its groups, and the random state are afterwards
    the same as before, also if the test fails. It ends early if the loss explodes or is not finite.

    Args:
        model: What ``step`` trains.
        optimizer: What it trains with.
        step: Takes one optimizer step on the next batch at the learning rate that it is given, and returns the loss of that batch
            before the step. It may raise ``NonFiniteError`` instead of returning a loss that is not finite.
        low: First rate.
        high: Last rate.
        steps: Steps at most.

    Raises:
        NoFallError: If the loss falls nowhere.
    """
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    mean = 0.0
    with undone(model, optimizer):
        for at in range(steps):
            rates.append(low * (high / low) ** (at / max(1, steps - 1)))
            losses.append(_loss(step, rates[-1]))
            mean = SMOOTHING * mean + (1 - SMOOTHING) * losses[-1]
            smoothed.append(mean / (1 - SMOOTHING ** (at + 1)))
            if not smoothed[-1] <= EXPLODED * min(smoothed):
                break
    return RangeCurve(tuple(rates), tuple(losses), tuple(smoothed), suggest(rates, smoothed, noise=_spread(losses)))


def suggest(rates: list[float], smoothed: list[float], *, noise: float = 0.0) -> float:
    """Return the rate in the middle of the longest fall of the loss.

    The longest strictly falling subsequence of the losses is taken, and of the rates at its members the middle one: well
    after the loss began to fall, well before it no longer does. This is the idea of fastai's ``valley``; on a smooth curve the
    two agree. The first tenth is left out, because means of a few losses are noisy.

    Args:
        rates: Learning rates, rising.
        smoothed: Running means of the loss at each.
        noise: Standard deviation of the loss between batches. Smaller falls do not count.

    Raises:
        NoFallError: If the loss falls nowhere.
    """
    start = len(rates) // 10
    seen = [value for value in smoothed[start:] if math.isfinite(value)]
    fall = _longest_fall(seen)
    if len(fall) < 2 or seen[fall[0]] - seen[fall[-1]] <= max(FALL * noise, 1e-6 * abs(seen[fall[0]])):
        raise NoFallError(
            f"the learning-rate range test found no fall of the loss between {rates[0]:.1e} and {rates[-1]:.1e} "
            f"in {len(rates)} steps; give lr a number"
        )
    return rates[start + fall[len(fall) // 2]]


def _spread(losses: list[float]) -> float:
    """Return the standard deviation of the losses about their trend, robust to an explosion at the end."""
    jumps = [abs(after - before) for before, after in itertools.pairwise(losses) if math.isfinite(before) and math.isfinite(after)]
    # Of normal noise the median of |a - b| is 0.954 standard deviations.
    return statistics.median(jumps) / 0.954 if jumps else 0.0


def _longest_fall(values: list[float]) -> list[int]:
    """Return the indices of the longest strictly falling subsequence; of several the one that ends first."""
    lengths: list[int] = []
    before: list[int | None] = []
    for at, value in enumerate(values):
        higher = [index for index in range(at) if values[index] > value]
        best = max(higher, key=lambda index: lengths[index], default=None)
        before.append(best)
        lengths.append(1 if best is None else lengths[best] + 1)
    at_last: int | None = max(range(len(values)), key=lambda index: lengths[index], default=None)
    fall: list[int] = []
    while at_last is not None:
        fall.append(at_last)
        at_last = before[at_last]
    return fall[::-1]


def draw_range(curve: RangeCurve, path: Path) -> None:
    """Draw the losses over the rates, the suggestion marked.

    Args:
        curve: What ``range_test`` gave.
        path: A ``.png`` or ``.svg`` file, replaced.
    """
    figure = empty_figure(6, 3.6)
    panel = figure.subplots()
    figure.subplots_adjust(left=0.12, right=0.97, bottom=0.15, top=0.95)
    panel.set_xscale("log")
    panel.plot(curve.rates, curve.losses, linewidth=0.8, color="lightgrey", label="loss of the batch")
    panel.plot(curve.rates, curve.smoothed, color="tab:blue", label="running mean")
    panel.axvline(curve.suggestion, linewidth=1, linestyle=":", color="tab:green", label=f"suggestion: {curve.suggestion:.1e}")
    start, least = curve.smoothed[0], min((loss for loss in curve.losses if math.isfinite(loss)), default=0.0)
    if math.isfinite(start) and start > least:  # without the explosion at the end, which would flatten the rest
        panel.set_ylim(least - 0.1 * (start - least), start + 0.5 * (start - least))
    panel.set_xlabel("learning rate of the head")
    panel.set_ylabel("loss")
    panel.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _loss(step: Callable[[float], float], rate: float) -> float:
    try:
        return step(rate)
    except NonFiniteError:
        return math.inf


@contextmanager
def undone(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Restore at the end everything that a step changes, in place."""
    # Copies on the CPU, or the trial would find less GPU memory than training has.
    state = {owner: {name: _cpu_copy(value) for name, value in entry.items()} for owner, entry in optimizer.state.items()}
    groups = [{key: copy.deepcopy(value) for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    with as_before(model):
        try:
            yield
        finally:
            optimizer.state.clear()
            optimizer.state.update({owner: {name: value() for name, value in copies.items()} for owner, copies in state.items()})
            for group, before in zip(optimizer.param_groups, groups, strict=True):
                parameters = group["params"]
                group.clear()
                group.update(before, params=parameters)


def _cpu_copy(value: Any) -> Callable[[], Any]:
    """Copy a value to the CPU; return a function that gives it back on its device."""
    if isinstance(value, Tensor):
        saved, device = value.detach().to("cpu", copy=True), value.device
        return lambda: saved.to(device)
    saved = copy.deepcopy(value)
    return lambda: saved
