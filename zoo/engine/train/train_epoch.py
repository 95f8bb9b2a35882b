"""The optimizer steps of one epoch, with checks, stops and checkpoints between them, and the error for a step that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from zoo.data.table import Table
from zoo.engine.cache.forward import Forward
from zoo.engine.distributed.ranks import Status
from zoo.engine.loading.batches import StepBatches
from zoo.engine.loading.order import Indices
from zoo.engine.loading.stream import Stream
from zoo.engine.optim.nonfinite import EVERY, Guard, NonFiniteError
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import Epoch
from zoo.engine.options.own_parts import name_of
from zoo.engine.rundir.checkpoint_writer import CheckpointWriter
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.runtime.signals import Stopped
from zoo.engine.train.optimizer_step import Step, Stepper
from zoo.engine.train.run_parts import RunParts
from zoo.errors import TrainingError, examples


def not_finite(
    error: NonFiniteError, where: str, indices: Sequence[int], table: Table, *, lr: float, config: Config, half: bool, loss: str = ""
) -> TrainingError:
    """Return the error for a loss or gradient that is not finite, naming the samples of its step.

    Args:
        error: The loss or gradient.
        where: Name of the step.
        indices: The samples of the step.
        table: The training data.
        lr: Current learning rate; 0 before the first step.
        config: The configuration, so that no remedy is proposed that is set already.
        half: Whether the run computes in bf16.
        loss: Name of the user's own loss; empty for one of ours.
    """
    names = examples([f"{index} ({table.name_of(index)})" for index in indices])
    remedies = [f"look for a logarithm or a quotient of 0 in your loss {loss}"] if loss else []
    untrained = "look at the values of these samples and at the weights, for nothing had trained yet"
    remedies += [f"lower lr (now {lr:g})"] if lr else [untrained]
    remedies += ["give clip_grad=1.0"] if lr and config.clip_grad is None else []
    remedies += ["give precision='fp32'"] if half else []
    remedy = " or ".join(remedies)
    return TrainingError(
        f"the {error.what} is not finite in {where}, samples {names}; no parameter was changed by it. {remedy[0].upper()}{remedy[1:]}"
    )


@dataclass(frozen=True)
class StepErrors:
    """Makes the error for a loss or gradient of a run that is not finite.

    Attributes:
        parts: The stateful objects of the run.
        context: The conditions of the run.
    """

    parts: RunParts
    context: RunContext

    def __call__(self, error: NonFiniteError, epoch: Epoch, order: Sequence[Sequence[Indices]]) -> TrainingError:
        """Return the error for one step.

        Args:
            error: The loss or gradient, with the number of the step.
            epoch: The epoch of the step.
            order: The samples of each batch of each step of the epoch.
        """
        parts = self.parts
        indices = [index for batch in order[error.step] for index in batch]
        where = f"epoch {parts.state.epoch + 1} (phase {epoch.phase.name!r}), step {error.step + 1} of {epoch.steps}"
        lr = parts.rates.peak(epoch) if parts.optimizer.param_groups[-1]["lr"] else 0.0
        table = next(iter(parts.objective.sources.values())).table
        loss = name_of(self.context.own.loss) if self.context.own.loss else ""
        return not_finite(error, where, indices, table, lr=lr, config=self.context.config, half=self.context.half, loss=loss)


class EpochRunner:
    """Takes the steps of an epoch.

    Args:
        parts: The stateful objects of the run.
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
