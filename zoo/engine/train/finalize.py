"""The end of a run: the kept epoch's values, the mean over the last epochs, and WiSE-FT."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from zoo.engine.cache.phase_data import PhaseData
from zoo.engine.inference.batched_inference import in_batches_that_fit
from zoo.engine.loading.order import epoch_order, even_batches
from zoo.engine.optim.run_averages import Averages
from zoo.engine.optim.weight_averaging import interpolate, refresh_statistics
from zoo.engine.options.epochs import Epoch
from zoo.engine.options.model_selection import Best
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.train.checkpoint_writer import CheckpointWriter
from zoo.engine.train.objective import Objective
from zoo.engine.train.train_state import Snapshot, TrainState, values_of
from zoo.models.task_model import TaskModel
from zoo.tuning.shard import load_values

log = logging.getLogger("zoo")


class Finalizer:
    """Ends a run: loads what it kept, and applies what its configuration asks for after training.

    Args:
        objective: What was minimised.
        context: The conditions of the run.
        plan: Its epochs.
        state: How far it has come.
        best: Its best epoch.
        kept: Values of the best epoch.
        start: Values before the last phase, where the result is to be mixed with them.
        averages: Averages of its values.
        data: For passes over the training data.
        writer: Writes checkpoints.
        validate: Returns the metrics of values that no epoch ended with.
        report: Takes a line of the history.
    """

    def __init__(
        self,
        objective: Objective,
        context: RunContext,
        plan: Sequence[Epoch],
        *,
        state: TrainState,
        best: Best,
        kept: Snapshot,
        start: Snapshot,
        averages: Averages,
        data: PhaseData,
        writer: CheckpointWriter,
        validate: Callable[[], dict[str, float]],
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self._objective, self._context, self._plan, self._state, self._best = objective, context, plan, state, best
        self._kept, self._start, self._averages, self._data = kept, start, averages, data
        self._writer, self._validate, self._report, self._model = writer, validate, report, objective.model

    def finish(self) -> None:
        """Load the kept values, then average and mix, each once and with a line in the history."""
        averages, model, validated = self._averages, self._model, bool(self._objective.valid)
        done = {record["phase"] for record in self._state.history}
        if self._kept.values:
            load_values(self._objective.module, self._kept.values)
        elif averages.ema is not None and not done & {"average", "wise-ft"}:
            averages.ema.copy_to(model)
        if averages.mean is not None and averages.mean.updates and "average" not in done:
            with _all_or_nothing(model) as before:
                averages.mean.copy_to(model)
                self._refresh()
                better = self._judge("average")
            if not better and validated:
                model.load_state_dict(before)
        elif averages.mean is not None and not averages.mean.updates:
            log.warning("average: the run ended before the epochs that it was to average")
        if self._start.values and "wise-ft" not in done and not self._is_of_last_phase():
            log.warning("wise_ft: the kept epoch is from before the last phase, so there is nothing to mix; it stays as it is")
        elif self._start.values and "wise-ft" not in done:
            with _all_or_nothing(model):
                interpolate(model, self._start.values, self._context.config.wise_ft)
                self._refresh()
                self._judge("wise-ft", asked=True)

    def _is_of_last_phase(self) -> bool:
        kept = [record["phase"] for record in self._state.history if record["epoch"] == self._best.epoch]
        return not kept or kept[0] in ("average", self._plan[-1].phase.name)

    def _judge(self, name: str, *, asked: bool = False) -> bool:
        """Validate values that no epoch ended with, as one more line of the history, numbered on; return whether they are kept."""
        state, started, validated = self._state, time.perf_counter(), bool(self._objective.valid)
        metrics = self._validate()
        record = {"epoch": state.history[-1]["epoch"] + 1, "phase": name, **metrics, "seconds": round(time.perf_counter() - started, 3)}
        state.history.append(record)
        better = validated and self._best.update(record["epoch"], record)
        if asked and validated:
            self._best.epoch = record["epoch"]
        if better or asked:
            self._kept.take(self._objective.module)
        self._context.progress.epoch(record, len(self._plan), better or asked)
        self._writer.save()
        self._report(record)
        return better or asked

    def _refresh(self) -> None:
        """Let BatchNorm see the training data with the new values, where its statistics moved in training."""
        model, config, ranks = self._model, self._context.config, self._context.ranks
        model.freeze(self._plan[-1].frozen)
        # In the order of one more epoch: data are often sorted by class, and statistics of one class at a time are those of none.
        first = next(iter(self._objective.sources.values())).table
        order = epoch_order(len(first), config.seed, len(self._plan))

        def refresh(size: int) -> int:
            batches = even_batches(order, size)  # as in training, for one sample alone has no statistics
            return refresh_statistics(model, self._data.inputs(batches), forward=self._context.cast(model))

        with ranks.together():
            size = -(-config.samples // ranks.count)
            in_batches_that_fit(refresh, max(1, size // self._state.split), halved=None if ranks.lockstep else lambda: None)


@contextmanager
def _all_or_nothing(model: TaskModel) -> Iterator[dict[str, Tensor]]:
    """Yield the model's values, and put them back where an error comes between: what is half done would be taken for the start."""
    before = values_of(model)
    try:
        yield before
    except BaseException:
        model.load_state_dict(before)
        raise
