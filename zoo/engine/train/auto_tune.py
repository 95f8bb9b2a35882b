"""Automatic micro-batch size and learning rate: trials before a phase, which are rolled back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import numpy.typing as npt

from zoo.data.dataset import Batch
from zoo.engine.cache.forward import Forward
from zoo.engine.distributed.ranks import Status
from zoo.engine.loading.batches import StepBatches
from zoo.engine.loading.order import Indices
from zoo.engine.loading.stream import Stream
from zoo.engine.objective.objective import Objective
from zoo.engine.optim.lr_finder import NoFallError, draw_range, range_test, undone
from zoo.engine.optim.nonfinite import NonFiniteError
from zoo.engine.options.epochs import Epoch
from zoo.engine.rundir.curves import drawn
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.rundir.stateful import Stateful
from zoo.engine.runtime.signals import Stopped
from zoo.engine.train.optimizer_step import Step, Stepper
from zoo.engine.train.run_parts import RunParts
from zoo.engine.train.train_epoch import StepErrors


class AutoTune:
    """The trials of one run.

    Args:
        parts: The stateful objects of the run.
        context: The conditions of the run.
        batches: The samples of each step.
    """

    def __init__(self, parts: RunParts, context: RunContext, batches: StepBatches) -> None:
        self._context, self._batches, self._epochs, self._explain = context, batches, parts.epochs, StepErrors(parts, context)
        self._state, self._rates, self._optimizer, self._objective = parts.state, parts.rates, parts.optimizer, parts.objective
        self._hooks = tuple(parts.step_hooks.values())

    def fit_memory(self, epoch: Epoch, streams: Mapping[str, Stream], forward: Forward, stepper: Stepper) -> int:
        """Take one step with the largest batches of an epoch and undo it; return the number of micro-batches that fit into memory."""
        lengths = _lengths(streams)

        def size(step: Sequence[Indices]) -> int:
            return max(len(batch) * (1 if lengths is None else int(lengths[batch].max())) for batch in step)

        order = [max(self._batches.order(self._state.epoch, lengths), key=size)]
        stepper.begin(self._state.micro_batches)
        self._rates.apply_head(0.0)
        with undone(self._objective.module, self._optimizer), _rolled_back(self._objective, self._hooks):
            loaded = next(self._batches.load(epoch, self._state.epoch, streams, order))
            self._take(stepper, forward, order[0], loaded, partial(self._explain, epoch=epoch, order=order))
        return stepper.micro_batches

    def find_rate(self, epoch: Epoch, streams: Mapping[str, Stream], forward: Forward, stepper: Stepper) -> float:
        """Return the head's learning rate for a phase by a range test, and draw its curve into the run's folder.

        Raises:
            TrainingError: If the loss falls at no rate.
        """
        stepper.begin(self._state.micro_batches)
        batches, progress = self._endless(epoch, streams), self._context.progress

        def step(lr: float) -> float:
            self._rates.apply_head(lr)
            return self._take(stepper, forward, *next(batches))

        progress.begin(f"{epoch.phase.name}: learning rate", 0)
        try:
            with _rolled_back(self._objective, self._hooks):
                curve = range_test(self._objective.module, self._optimizer, step)
        except NoFallError:
            rate = self._rate_without_fall(epoch)
            if rate is None:
                raise
            progress.note(f"{epoch.phase.name}: the loss falls at no learning rate any more; {rate:.2g}, from the phase before")
            return rate
        if self._context.ranks.main:
            name = "".join(sign if sign.isalnum() else "-" for sign in epoch.phase.name)
            drawn(lambda path: draw_range(curve, path), self._context.folder / f"lr-{epoch.index + 1}-{name}.png")
        progress.note(f"{epoch.phase.name}: learning rate {curve.suggestion:.2g}, found in {len(curve.rates)} steps")
        return curve.suggestion

    def _rate_without_fall(self, epoch: Epoch) -> float | None:
        """Return the rate that earlier phases suggest: the last that was found, or the recipe's where a head was solved; else None."""
        found = self._rates.found
        before = max((index for index in map(int, found) if index < epoch.index), default=None)
        if before is None:
            solved = any(other.solved and other.index < epoch.index for other in self._epochs)
            return self._context.config.recipe.lr * epoch.phase.lr if solved else None
        last = next(other for other in self._epochs if other.index == before)
        return found[str(before)] * epoch.phase.lr / last.phase.lr

    def _endless(self, epoch: Epoch, streams: Mapping[str, Stream]) -> Iterator[tuple[Sequence[Indices], Sequence[Mapping[str, Batch]]]]:
        """Yield the steps of the epoch in an endless loop."""
        position = self._state.epoch
        order = self._batches.order(position, _lengths(streams))
        while True:
            yield from zip(order, self._batches.load(epoch, position, streams, order), strict=True)

    def _take(
        self,
        stepper: Stepper,
        forward: Forward,
        step: Sequence[Indices],
        loaded: Sequence[Mapping[str, Batch]],
        explain: Callable[[NonFiniteError], Exception] = lambda error: error,
    ) -> float:
        """Take one step and return its mean loss over all ranks."""
        samples = sum(len(batch) for batch in step)
        one = Step(0, samples, forward, asked=lambda: Status.STOP if self._context.stop.signum else Status.FINE, explain=explain)
        value, verdict = stepper.take(lambda: loaded, one)
        if verdict == Status.STOP:
            raise Stopped
        return self._context.ranks.total(float(value))


def _lengths(streams: Mapping[str, Stream]) -> npt.NDArray[np.int64] | None:
    """Return the tokens per sample of the first source."""
    return next(iter(streams.values())).lengths


@contextmanager
def _rolled_back(objective: Objective, hooks: Sequence[Stateful] = ()) -> Iterator[None]:
    """Restore an objective's own state at the end, without that of its module, and the state of what is called at steps."""
    moving = {} if objective.name == "supervised" else objective.parts()  # penalties only hold constant start values
    stateful = (objective, *moving.values(), *hooks)
    before = copy.deepcopy([dict(part.state_dict()) for part in stateful])
    try:
        yield
    finally:
        for part, state in zip(stateful, before, strict=True):
            part.load_state_dict(state)
