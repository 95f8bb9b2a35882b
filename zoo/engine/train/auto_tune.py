"""What is tried before a phase trains, and undone: whether a batch fits into memory, and which learning rate suits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from zoo.engine.distributed.ranks import Status
from zoo.engine.loading.loader import Loaded
from zoo.engine.loading.order import Batch
from zoo.engine.loading.stream import Stream
from zoo.engine.optim.lr_finder import NoFallError, draw_range, range_test, undone
from zoo.engine.optim.nonfinite import NonFiniteError
from zoo.engine.options.epochs import Epoch
from zoo.engine.rundir.curves import drawn
from zoo.engine.runtime.signals import Stopped
from zoo.engine.train.optimizer_step import Step, Stepper
from zoo.engine.train.train_epoch import explained

if TYPE_CHECKING:
    from zoo.engine.train.trainer import Training


def fit_memory(run: Training, epoch: Epoch, stream: Stream) -> int:
    """Take one step with the largest batches of an epoch and undo it; return in how many micro-batches a batch fits into memory."""
    lengths = stream.lengths

    def size(step: Sequence[Batch]) -> int:
        return max(len(batch) * (1 if lengths is None else int(lengths[batch].max())) for batch in step)

    order = [max(run.batches.order(run.state.epoch, lengths), key=size)]
    stepper = _stepper(run)
    run.rates.apply_head(0.0)
    with undone(run.model, run.optimizer):
        loaded = next(run.batches.load(epoch, run.state.epoch, stream, order))
        _take(run, stepper, stream, order[0], loaded, partial(explained, run, epoch, order))
    return stepper.split


def find_rate(run: Training, epoch: Epoch, stream: Stream) -> float:
    """Return the head's learning rate for a phase by a range test, and draw its curve into the run's folder.

    Raises:
        TrainingError: If the loss falls at no rate.
    """
    stepper, batches = _stepper(run), _endless(run, epoch, stream)

    def step(lr: float) -> float:
        run.rates.apply_head(lr)
        return _take(run, stepper, stream, *next(batches))

    run.progress.begin(f"{epoch.phase.name}: learning rate", 0)
    try:
        curve = range_test(run.model, run.optimizer, step)
    except NoFallError:
        before = max((index for index in map(int, run.state.rates) if index < epoch.index), default=None)
        if before is None:
            raise
        last = next(other for other in run.plan if other.index == before)
        found = run.state.rates[str(before)] * epoch.phase.lr / last.phase.lr
        run.progress.note(f"{epoch.phase.name}: the loss falls at no learning rate any more; {found:.2g}, from the phase before")
        return found
    if run.ranks.main:
        name = "".join(sign if sign.isalnum() else "-" for sign in epoch.phase.name)
        drawn(lambda path: draw_range(curve, path), run.folder / f"lr-{epoch.index + 1}-{name}.png")
    run.progress.note(f"{epoch.phase.name}: learning rate {curve.suggestion:.2g}, found in {len(curve.rates)} steps")
    return curve.suggestion


def _stepper(run: Training) -> Stepper:
    guard, stepper = run.make_stepper()
    guard.deferred = False  # told at once, and on a GPU waited for: what it flags must not outlive the trial
    stepper.begin()
    stepper.split = run.state.split
    return stepper


def _endless(run: Training, epoch: Epoch, stream: Stream) -> Iterator[tuple[Sequence[Batch], list[Loaded]]]:
    """Yield the steps of the epoch over and over."""
    position = run.state.epoch
    order = run.batches.order(position, stream.lengths)
    while True:
        yield from zip(order, run.batches.load(epoch, position, stream, order), strict=True)


def _take(
    run: Training,
    stepper: Stepper,
    stream: Stream,
    step: Sequence[Batch],
    loaded: list[Loaded],
    explain: Callable[[NonFiniteError], Exception] = lambda error: error,
) -> float:
    """Take one step and return its mean loss over all processes."""
    samples = sum(len(batch) for batch in step)
    one = Step(0, samples, stream.forward, asked=lambda: Status.STOP if run.stop.signum else Status.FINE, explain=explain)
    value, verdict = stepper.take(lambda: loaded, one)
    if verdict == Status.STOP:
        raise Stopped
    return run.ranks.total(float(value))
