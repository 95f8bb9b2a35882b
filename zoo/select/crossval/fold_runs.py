"""The runs of the folds, one after the other, each in a folder of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from zoo.data.splits.folds import Fold
from zoo.data.splits.train_valid import hold_out, normal_group
from zoo.data.table import Table
from zoo.engine.distributed.rendezvous import joined
from zoo.engine.inference.decoding.decoder import decoder_of
from zoo.engine.preview.preview import untouched
from zoo.engine.runtime.progress import Progress, in_time_units
from zoo.engine.runtime.signals import StopFlag
from zoo.engine.train.fit import run_job
from zoo.engine.train.job import Job, Tables
from zoo.errors import InterruptedRunError, SavedModelError
from zoo.saved.config import read_config
from zoo.select.crossval.held_out import held_out_outputs, read_outputs, write_outputs
from zoo.select.crossval.predictions import Part, metrics_of
from zoo.select.crossval.result import FoldResult
from zoo.util.numbers import score_text

log = logging.getLogger("zoo")


class FoldRuns:
    """The runs of a cross-validation.

    Args:
        job: The job of every fold; its model is as before after each.
        table: All samples.
        folds: Their division.
        folder: The folder of the cross-validation.
        inner: Whether a fifth of the training samples of each fold is held out to choose the epoch.
        progress: Prints a line per fold.
        stop: Set by a signal.

    Attributes:
        results: Results of the folds so far.
        parts: Their held-out samples with the outputs for them.
    """

    def __init__(
        self, job: Job, table: Table, folds: Sequence[Fold], folder: Path, *, inner: bool, progress: Progress, stop: StopFlag
    ) -> None:
        self._job, self._folds, self._folder, self._inner = job, folds, folder, inner
        self._progress, self._stop = progress, stop
        self._table = table.shared_origin()  # so that what is frozen is computed once for all folds
        self.results: list[FoldResult] = []
        self.parts: list[Part] = []
        self._decoder = decoder_of(job.model, predicts=False)

    def run(self, number: int, known: FoldResult | None) -> FoldResult:
        """Run one fold, or go on with it; a fold that is finished is only read.

        Args:
            number: The fold.
            known: Its result in an earlier call, or None.

        Raises:
            InterruptedRunError: After a signal.
        """
        fold, model = self._folds[number], self._job.model
        folder, started = self._folder / f"fold-{number}", time.monotonic()
        held = self._table.select(fold.held_out)
        before = read_outputs(folder)
        if before is None:
            with untouched(model):
                self._fit(fold, folder)
                outputs = held_out_outputs(model, self._job, held, folder)
            groups = None if held.groups is None else [normal_group(group) for group in held.groups]
            write_outputs(folder, outputs, fold.held_out, np.asarray(held.targets), groups)
        elif np.array_equal(before.rows, fold.held_out):
            outputs = before.outputs
        else:
            raise SavedModelError(f"{str(folder)!r} has the outputs of other rows than the fold; remove it, and go on")
        decoder = replace(self._decoder, thresholds=tuple(read_config(folder).zoo.thresholds) or None)
        if known is None:
            metrics, seconds = metrics_of(decoder, self._job.own, held, outputs), time.monotonic() - started
            known = FoldResult(number, fold.repeat, len(fold.train), len(fold.held_out), metrics, round(seconds, 3))
        self.results.append(known)
        self.parts.append(Part(fold, decoder, outputs))
        return known

    def _fit(self, fold: Fold, folder: Path) -> None:
        job, model = replace(self._job, open_data=lambda: self._tables(fold)), self._job.model
        with joined(job.config.device, job.config.timeout) as ranks:
            thresholds = model.thresholds
            run_job(job, ranks, folder, resume=(folder / "run.json").is_file())
            model.thresholds = thresholds  # those of the fold are in its folder

    def _tables(self, fold: Fold) -> Tables:
        train = self._table.select(fold.train)
        return hold_out(train, self._job.config.seed) if self._inner else (train, None)

    def report(self, result: FoldResult) -> None:
        """Print the line of a fold that was run.

        Raises:
            InterruptedRunError: If a signal came, and folds are left.
        """
        left = (len(self._folds) - len(self.results)) * float(np.mean([one.seconds for one in self.results]))
        metric = self._progress.monitor
        value = f"{metric} {score_text(metric, result.metrics[metric])}" if metric in result.metrics else f"{metric} undefined"
        more = f", about {in_time_units(left)} left" if left >= 1 else ""
        self._progress.note(f"fold {len(self.results)}/{len(self._folds)}: {value}, {in_time_units(result.seconds)}{more}")
        if self._stop.signum and len(self.results) < len(self._folds):
            error = InterruptedRunError(f"stopped by {self._stop.name} after fold {result.fold}")
            error.exit_code = self._stop.exit_code
            raise error
