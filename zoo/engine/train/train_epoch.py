"""The optimizer steps of one epoch, with checks, stops and checkpoints between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from zoo.engine.cache.forward import Forward
from zoo.engine.distributed.ranks import Status
from zoo.engine.loading.batches import StepBatches
from zoo.engine.loading.stream import Stream
from zoo.engine.optim.nonfinite import EVERY, Guard, NonFiniteError
from zoo.engine.options.epochs import Epoch
from zoo.engine.rundir.checkpoint_writer import CheckpointWriter
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.runtime.signals import Stopped
from zoo.engine.train.messages import StepErrors
from zoo.engine.train.optimizer_step import Step, Stepper
from zoo.engine.train.run_parts import RunParts


class EpochRunner:
    """Takes the steps of an epoch.

    Args:
        parts: The run.
        context: The conditions of the run.
        stepper: Takes single steps.
        guard: Checks their losses and gradients.
        batches: The samples of each step.
        writer: Writes checkpoints.
    """

    def __init__(
        self,
        parts: RunParts,
        context: RunContext,
        *,
        stepper: Stepper,
        guard: Guard,
        batches: StepBatches,
        writer: CheckpointWriter,
    ) -> None:
        self._parts, self._context, self._stepper, self._guard = parts, context, stepper, guard
        self._batches, self._writer, self._explain = batches, writer, StepErrors(parts, context)

    def run(self, epoch: Epoch, streams: Mapping[str, Stream], forward: Forward, title: str, seconds: Callable[[], float]) -> None:
        """Take the remaining steps of an epoch.

        Args:
            epoch: The epoch.
            streams: The batches of each source.
            forward: Passes through the model.
            title: What the progress bar calls it.
            seconds: Seconds of the epoch so far.

        Raises:
            Stopped: If a signal came; the step was finished.
            TrainingError: If a loss or gradient is not finite.
        """
        state, stepper = self._parts.state, self._stepper
        order = self._batches.order(state.epoch, next(iter(streams.values())).lengths)[: epoch.steps]
        loads = self._batches.load(epoch, state.epoch, streams, order, state.step)
        stepper.begin(state.micro_batches)
        self._context.progress.begin(title, epoch.steps)
        explain = partial(self._explain, epoch=epoch, order=order)
        for number in range(state.step, epoch.steps):
            self._parts.rates.apply(epoch, number)
            samples = sum(len(batch) for batch in order[number])
            step = Step(number, samples, forward, asked=self._asked, explain=explain)
            value, verdict = stepper.compute(partial(next, loads), step)
            with self._writer.updating():
                stepper.update()
                state.loss_sum += value * samples
                state.step, state.steps, state.micro_batches = number + 1, state.steps + 1, stepper.micro_batches
                state.seen += samples
                self._parts.averages.end_step()
            self._after_step(number, verdict, explain, seconds)
        self._check(explain)

    def _after_step(
        self, number: int, verdict: Status, explain: Callable[[NonFiniteError], Exception], seconds: Callable[[], float]
    ) -> None:
        progress = self._context.progress
        stop = verdict == Status.STOP or (self._context.ranks.count == 1 and self._context.stop.signum > 0)
        save = verdict == Status.SAVE
        # On a GPU, unchecked steps must not get into a checkpoint; and if the first step was not finite, a fused optimizer
        # has no state.
        checked = number == 0 or (number + 1) % EVERY == 0 or stop or save
        if checked:
            self._check(explain)
        if progress.due:
            progress.step(number + 1, self._loss() if checked or not self._guard.deferred else None)  # reading the loss waits for a GPU
        if stop:
            raise Stopped
        if save:
            self._parts.state.seconds = seconds()
            self._writer.save()

    def _asked(self) -> Status:
        """Return the request of this rank after a step; only the first rank asks to save."""
        if self._context.stop.signum:
            return Status.STOP
        return Status.SAVE if self._context.ranks.main and self._writer.overdue else Status.FINE

    def _check(self, explain: Callable[[NonFiniteError], Exception]) -> None:
        try:
            self._guard.check()
        except NonFiniteError as error:
            raise explain(error) from error

    def _loss(self) -> str:
        """Return the mean loss of the epoch so far, estimated from this rank."""
        return f"loss {float(self._parts.state.loss_sum) * self._context.ranks.count / max(1, self._parts.state.seen):.4f}"
