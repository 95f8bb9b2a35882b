"""What is done to the values of a run after its last epoch: the mean over the last epochs, and WiSE-FT."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.engine.inference.batched_inference import in_batches_that_fit
from zoo.engine.loading.order import epoch_order, even_batches
from zoo.engine.optim.weight_averaging import interpolate, refresh_statistics
from zoo.engine.train.train_state import values_of
from zoo.engine.train.validation import validate
from zoo.models.task_model import TaskModel
from zoo.tuning.shard import load_values

if TYPE_CHECKING:
    from zoo.engine.train.trainer import Training

log = logging.getLogger("zoo")


def conclude(run: Training) -> None:
    """Load what a run kept, and apply what its configuration asks for after training, each once and with a line in the history."""
    state, averages = run.state, run.averages
    done = {record["phase"] for record in state.history}
    if state.kept:
        load_values(run.model, state.kept)
    elif averages.ema is not None and not done & {"average", "wise-ft"}:
        averages.ema.copy_to(run.model)
    if averages.mean is not None and averages.mean.updates and "average" not in done:
        with _all_or_nothing(run.model) as before:
            averages.mean.copy_to(run.model)
            _refresh(run)
            better = _judge(run, "average")
        if not better and run.truth is not None:
            run.model.load_state_dict(before)
    elif averages.mean is not None and not averages.mean.updates:
        log.warning("average: the run ended before the epochs that it was to average")
    if state.start and "wise-ft" not in done and not _is_of_last_phase(run):
        log.warning("wise_ft: the kept epoch is from before the last phase, so there is nothing to mix; it stays as it is")
    elif state.start and "wise-ft" not in done:
        with _all_or_nothing(run.model):
            interpolate(run.model, state.start, run.config.wise_ft)
            _refresh(run)
            _judge(run, "wise-ft", asked=True)


@contextmanager
def _all_or_nothing(model: TaskModel) -> Iterator[dict[str, Tensor]]:
    """Yield the model's values, and put them back where something comes between: what is half done would be taken for the start."""
    before = values_of(model)
    try:
        yield before
    except BaseException:
        model.load_state_dict(before)
        raise


def _is_of_last_phase(run: Training) -> bool:
    kept = [record["phase"] for record in run.state.history if record["epoch"] == run.state.best.epoch]
    return not kept or kept[0] in ("average", run.plan[-1].phase.name)


def _judge(run: Training, name: str, *, asked: bool = False) -> bool:
    """Validate values that no epoch ended with, as one more line of the history, numbered on; tell whether they are kept."""
    state, started = run.state, time.perf_counter()
    metrics = validate(run, None)
    record = {"epoch": state.history[-1]["epoch"] + 1, "phase": name, **metrics, "seconds": round(time.perf_counter() - started, 3)}
    state.history.append(record)
    better = run.truth is not None and state.best.update(record["epoch"], record)
    if asked and run.truth is not None:
        state.best.epoch = record["epoch"]
    if better or asked:
        state.keep(run.model)
    run.progress.epoch(record, len(run.plan), better or asked)
    run.saver.save()
    return better or asked


def _refresh(run: Training) -> None:
    """Let BatchNorm see the training data with the new values, where its statistics moved in training."""
    run.model.freeze(run.plan[-1].frozen)
    # In the order of one more epoch: data are often sorted by class, and statistics of one class at a time are those of none.
    order = epoch_order(len(run.train), run.config.seed, len(run.plan))

    def refresh(size: int) -> int:
        batches = even_batches(order, size)  # as in training, for one sample alone has no statistics
        return refresh_statistics(run.model, run.streams.inputs(batches), forward=run.streams.cast(run.model))

    with run.ranks.together():
        size = -(-run.config.samples // run.ranks.count)
        in_batches_that_fit(refresh, max(1, size // run.state.split), halved=None if run.ranks.lockstep else lambda: None)
