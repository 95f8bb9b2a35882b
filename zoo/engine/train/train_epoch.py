"""The optimizer steps of one epoch: their batches, what is looked at between two of them, and where a run stops or saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from zoo.engine.distributed.ranks import Status
from zoo.engine.loading.order import Batch
from zoo.engine.loading.stream import Stream
from zoo.engine.optim.nonfinite import EVERY, NonFiniteError
from zoo.engine.options.epochs import Epoch
from zoo.engine.runtime.signals import Stopped
from zoo.engine.train.messages import not_finite
from zoo.engine.train.optimizer_step import Step

if TYPE_CHECKING:
    from zoo.engine.train.trainer import Training


def take_steps(run: Training, epoch: Epoch, stream: Stream) -> None:
    """Take the steps of an epoch that are left of it.

    Raises:
        Stopped: If a signal came; the step was finished.
        TrainingError: If a loss or gradient is not finite.
    """
    state, stepper = run.state, run.stepper
    order = run.batches.order(state.epoch, stream.lengths)[: epoch.steps]
    loads = run.batches.load(epoch, state.epoch, stream, order, state.step)
    stepper.begin()
    stepper.split = state.split
    run.progress.begin(f"{epoch.phase.name} {state.epoch + 1}/{len(run.plan)}", epoch.steps)
    explain, asked = partial(explained, run, epoch, order), partial(_asked, run)
    for step in range(state.step, epoch.steps):
        run.rates.apply(epoch, step)
        samples = sum(len(batch) for batch in order[step])
        value, verdict = stepper.take(partial(next, loads), Step(step, samples, stream.forward, asked=asked, explain=explain))
        state.loss_sum += value * samples
        state.step, state.steps, state.split = step + 1, state.steps + 1, stepper.split
        state.seen += samples
        run.averages.end_step()
        stepper.intact = True
        _after_step(run, step, verdict, explain)
    _look(run, explain)


def explained(run: Training, epoch: Epoch, order: Sequence[Sequence[Batch]], error: NonFiniteError) -> Exception:
    """Return the error for a loss or gradient that is not finite, with the samples of its step."""
    indices = [index for batch in order[error.step] for index in batch]
    where = f"epoch {run.state.epoch + 1} (phase {epoch.phase.name!r}), step {error.step + 1} of {epoch.steps}"
    lr = run.rates.peak(epoch) if run.optimizer.param_groups[-1]["lr"] else 0.0
    half = run.accelerator.mixed_precision != "no"
    return not_finite(error, where, indices, run.train, lr=lr, config=run.config, half=half)


def _after_step(run: Training, step: int, verdict: Status, explain: Callable[[NonFiniteError], Exception]) -> None:
    stop = verdict == Status.STOP or (run.ranks.count == 1 and run.stop.signum > 0)
    save = verdict == Status.SAVE
    # On a GPU, steps that nobody has looked at yet must not end up in a checkpoint unseen; and where a first step was not
    # finite, a fused optimizer has left its state unset.
    looked = step == 0 or (step + 1) % EVERY == 0 or stop or save
    if looked:
        _look(run, explain)
    if run.progress.due:
        run.progress.step(step + 1, _loss(run) if looked or not run.guard.deferred else None)  # it waits for a GPU
    if stop:
        raise Stopped
    if save:
        run.state.seconds = run.seconds
        run.saver.save()


def _asked(run: Training) -> Status:
    """Return what this process asks for after a step; the clock is that of the first."""
    if run.stop.signum:
        return Status.STOP
    return Status.SAVE if run.ranks.main and run.saver.overdue else Status.FINE


def _look(run: Training, explain: Callable[[NonFiniteError], Exception]) -> None:
    try:
        run.guard.check()
    except NonFiniteError as error:
        raise explain(error) from error


def _loss(run: Training) -> str:
    """Tell the mean loss of the epoch so far, of several processes as far as this one knows."""
    return f"loss {float(run.state.loss_sum) * run.ranks.count / max(1, run.state.seen):.4f}"
