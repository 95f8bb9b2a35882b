"""The end of a run: values of the best epoch, the mean over the last epochs, WiSE-FT, and biases for images as they are."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.engine.cache.phase_data import PhaseData
from zoo.engine.inference.batched_inference import in_batches_that_fit
from zoo.engine.loading.order import epoch_order, even_batches
from zoo.engine.optim.weight_averaging import interpolate, refresh_statistics
from zoo.engine.options.model_selection import Best
from zoo.engine.options.recipe import RESERVED
from zoo.engine.rundir.checkpoint_writer import CheckpointWriter
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.train.run_parts import RunParts
from zoo.engine.train.train_state import values_of
from zoo.models.task_model import TaskModel
from zoo.tuning.shard import load_values
from zoo.util.numbers import score_text

log = logging.getLogger("zoo")


class Finalizer:
    """Loads the values of the best epoch after training, then averages and mixes them and fits biases anew, as configured.

    Args:
        parts: The stateful objects of the run.
        context: The conditions of the run.
        data: For passes over the training data.
        writer: Writes checkpoints.
        validate: Returns the metrics of averaged or mixed values.
        report: Gives a record of the history to trackers.
    """

    def __init__(
        self,
        parts: RunParts,
        context: RunContext,
        *,
        data: PhaseData,
        writer: CheckpointWriter,
        validate: Callable[[], dict[str, float]],
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self._parts, self._context, self._data, self._writer = parts, context, data, writer
        self._validate, self._report = validate, report
        self._objective, self._model, self._state, self._best = parts.objective, parts.objective.model, parts.state, parts.best

    def finish(self) -> None:
        """Load the best values, then average, mix and fit biases anew, each once and with a record in the history."""
        averages, model, validated = self._parts.averages, self._model, bool(self._objective.valid)
        best, start = self._parts.best_values.values, self._parts.start_values.values
        done = {record["phase"] for record in self._state.history}
        if best:
            load_values(self._objective.module, best)
        elif averages.ema is not None and not done & {*RESERVED}:
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
        if start and "wise-ft" not in done and not self._is_of_last_phase():
            log.warning("wise_ft: the kept epoch is from before the last phase, so there is nothing to mix; it stays as it is")
        elif start and "wise-ft" not in done:
            with _all_or_nothing(model):
                interpolate(model, start, self._context.config.wise_ft)
                self._refresh()
                self._judge("wise-ft", asked=True)
        if self._context.config.refit_bias and "refit-bias" not in done:
            self._refit_bias()
        self._context.progress.note(kept_before_tuning(self._state.history, self._best))

    def _is_of_last_phase(self) -> bool:
        kept = [record["phase"] for record in self._state.history if record["epoch"] == self._best.epoch]
        return not kept or kept[0] in (*RESERVED, self._parts.epochs[-1].phase.name)

    def _refit_bias(self) -> None:
        """Fit the biases of the head on the training images as they are, if tuning augmented them; with validation data, if it helps."""
        model, validated = self._model, bool(self._objective.valid)
        augmented = self._state.augments and any(epoch.augment for epoch in self._parts.epochs)
        if not augmented or not self._is_of_last_phase():
            return
        log.info(
            "the biases of the head are fitted anew on the training images as they are, as tuning saw augmented ones; "
            "refit_bias=False leaves them as tuned"
        )
        name, source = next(iter(self._objective.sources.items()))
        with _all_or_nothing(model) as before:
            self._objective.module.eval()
            with self._context.ranks.together():
                logits = torch.from_numpy(np.asarray(self._data.infer(None, name)))
            self._objective.refit_bias(logits, source.table)
            self._share(model.head.parameters())
            better = self._judge("refit-bias", asked=not validated)
        if not better:
            model.load_state_dict(before)

    def _share(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors the values of the first rank, in place: those of others may differ in the last digit, on other hardware in more."""
        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(self._context.ranks.of_first(tensor))

    def _judge(self, name: str, *, asked: bool = False) -> bool:
        """Validate averaged or mixed values, in one more record of the history; return whether they become the best."""
        state, started, validated = self._state, time.perf_counter(), bool(self._objective.valid)
        metrics = self._validate()
        record = {"epoch": state.history[-1]["epoch"] + 1, "phase": name, **metrics, "seconds": round(time.perf_counter() - started, 3)}
        state.history.append(record)
        better = validated and self._best.update(record["epoch"], record, asked=asked)
        if asked and validated:
            self._best.epoch = record["epoch"]
        if better or asked:
            self._parts.best_values.take(self._objective.module)
        self._context.progress.epoch(record, len(self._parts.epochs), better or asked)
        self._writer.save()
        self._report(record)
        return better or asked

    def _refresh(self) -> None:
        """Estimate BatchNorm statistics anew on training data, if they moved in training."""
        model, config, ranks = self._model, self._context.config, self._context.ranks
        model.freeze(self._parts.epochs[-1].frozen)
        # Shuffled, because data are often sorted by class, and batches of one class have other statistics.
        first = next(iter(self._objective.sources.values())).table
        order = epoch_order(len(first), config.seed, len(self._parts.epochs))

        def refresh(size: int) -> int:
            batches = even_batches(order, size)  # as in training: a batch of one sample has no statistics
            return refresh_statistics(model, self._data.inputs(batches), forward=self._context.cast(model))

        with ranks.together():
            size = -(-config.samples // ranks.count)
            in_batches_that_fit(refresh, max(1, size // self._state.micro_batches), halved=None if ranks.lockstep else lambda: None)
        self._share(buffer for buffer in model.buffers() if buffer.is_floating_point())


def kept_before_tuning(history: Sequence[Mapping[str, Any]], best: Best) -> str:
    """Return which phase the kept epoch is from where later phases did not improve on it; else an empty string."""
    kept = next((record for record in history if record["epoch"] == best.epoch), None)
    if kept is None:
        return ""
    after = [record for record in history if record["epoch"] > best.epoch and record["phase"] not in (kept["phase"], *RESERVED)]
    values = [record[best.monitor] for record in after if best.monitor in record and not math.isnan(record[best.monitor])]
    if not values or kept["phase"] in RESERVED:
        return ""
    phases = " and ".join(dict.fromkeys(f"'{record['phase']}'" for record in after))
    found = min(values) if best.lower else max(values)
    return (
        f"kept: epoch {best.epoch}, of phase '{kept['phase']}', {best.monitor} {score_text(best.monitor, kept[best.monitor])}; "
        f"tuning did not improve on it (best of {phases}: {score_text(best.monitor, found)})"
    )


@contextmanager
def _all_or_nothing(model: TaskModel) -> Iterator[dict[str, Tensor]]:
    """Yield the model's values, and restore them on an error, so that a resumed run does not start from half-averaged values."""
    before = values_of(model)
    try:
        yield before
    except BaseException:
        model.load_state_dict(before)
        raise
