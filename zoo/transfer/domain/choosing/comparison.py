"""Runs of several methods of domain adaptation and their comparison, which is resumed with the same options and data only."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.engine.distributed.rendezvous import joined
from zoo.engine.loading.sources import check_tables, inputs_in_use, summary
from zoo.engine.preview.preview import untouched
from zoo.engine.rundir.run_folder import FINISHED, Run, read_finished, write_run
from zoo.engine.runtime.progress import Progress, in_time_units
from zoo.engine.runtime.signals import going_on
from zoo.engine.train.fit import run_job
from zoo.engine.train.job import Job
from zoo.errors import DataError, InterruptedRunError, ZooError
from zoo.select.recipe_search.folders import CANDIDATES, clear, take_over
from zoo.select.recipe_search.take_values import take_values
from zoo.transfer.domain.alignments import KINDS
from zoo.transfer.domain.choosing.choice import BASELINE, Candidate, chosen_of
from zoo.transfer.domain.choosing.estimates import Estimates
from zoo.transfer.domain.choosing.evidence import Outputs, evidence, table_outputs
from zoo.transfer.domain.shift import Shift, measure_shift, named_differences, predicted_differences
from zoo.transfer.domain.target import check_other, open_target
from zoo.transfer.domain.validators import softmax

log = logging.getLogger("zoo")
DEFAULT = (BASELINE, "coral", "dan", "cdan-e", "mcc")


@dataclass
class Comparison:
    """The runs of the candidates, and their comparison.

    Attributes:
        job: The model, the data and the configuration.
        options: The ``DomainAdaptation``.
        folder: Folder of the choice.
        budget: Seconds, or None.
    """

    job: Job
    options: Any
    folder: Path
    budget: float | None

    def __post_init__(self) -> None:
        model = self.job.model
        self.train, valid = check_tables(model, self.job.open_data(), self.job.config)
        if valid is None:
            raise DataError("method 'auto' needs held-out samples of the source, and none could be held out; give validation data")
        self.valid, self.opened = valid, (self.train, valid)
        self.target = open_target(model, self.options.target, self.train, self.job.config)
        check_other(self.train, self.target)
        self.differences = named_differences(model, self.train.classes, self.options.target)
        self.names = list(dict.fromkeys([BASELINE, *(self.options.candidate_names() or DEFAULT)]))
        self.progress, self.started = Progress(self.job.quiet, f"target_{self.options.validator}"), time.monotonic()

    def run(self) -> Run:
        """Run the candidates and take over the chosen one."""
        write_run(self.folder, {"adaptation": self.record()})
        shift = self._shift()
        self.progress.note(f"auto: {shift}")
        for line in self.differences:  # the candidates would log them too, which is once
            log.warning("%s", line)
        estimates = Estimates(self.job, self._job_of, self.names)
        for line in estimates.lines(self.budget):
            self.progress.note(f"auto: {line}")
        found, outputs = [], {}
        for name in self.names:
            candidate, target = self._candidate(name, estimates)
            found.append(candidate)
            if target is not None:
                outputs[name] = target
        found, reason = chosen_of(found)
        best = next(one for one in found if one.chosen)
        more = predicted_differences(self.train.classes, *(softmax(one.logits) for one in outputs[best.method]))
        for line in (*more, reason):
            self.progress.note(f"auto: {line}")
        return self._finish(best, found, shift, [*self.differences, *more], reason)

    def record(self) -> dict[str, Any]:
        """Return what must be the same when a choice is resumed, as plain data."""
        options = {name: value for name, value in self.options.describe().items() if name not in ("target", "budget")}
        data = {name: summary(table) for name, table in (("train", self.train), ("valid", self.valid), ("target", self.target))}
        plain: dict[str, Any] = json.loads(json.dumps({"options": options, "config": self.job.config.to_dict(), "data": data}))
        return plain

    def load(self) -> None:
        """Give the model the values of the chosen run, and the inputs and class names of the source, in place."""
        take_values(self.job.model, self.folder, self.train, self.job.config)

    def _shift(self) -> Shift:
        """Return the shift of the features that the model has before it is trained."""
        model, config = self.job.model, self.job.config
        with untouched(model):
            model.inputs = inputs_in_use(model, config, self.train)
            source, target = (table_outputs(model, table, config).features for table in (self.train, self.target))
        return measure_shift(source, target, seed=config.seed)

    def _job_of(self, name: str) -> Job:
        """Return the job of a candidate."""
        spectral = self.options.spectral if KINDS[name].make else 0.0  # it is added to methods that align features
        method = dataclasses.replace(self.options, method=name, spectral=spectral, candidates=None, budget=None)
        return replace(self.job, objective=method, open_data=lambda: self.opened)

    def _candidate(self, name: str, estimates: Estimates) -> tuple[Candidate, tuple[Outputs, Outputs] | None]:
        """Run a candidate, or leave it out; return also its outputs for the held-out source and the target."""
        spent, expected = time.monotonic() - self.started, estimates.of(name)
        if self.budget is not None and name != BASELINE and spent + expected > self.budget:
            note = f"it would take about {in_time_units(expected)}, and {in_time_units(max(0.0, self.budget - spent))} were left"
            self.progress.note(f"auto: {name} is left out: {note}")
            return Candidate(name, note=f"left out: {note}"), None
        model, config, folder = self.job.model, self.job.config, f"{CANDIDATES}/{name}"
        job = self._job_of(name)
        self.progress.note(f"auto: {name}")
        began = time.monotonic()
        try:
            with untouched(model):
                with joined(config.device, config.timeout) as ranks:
                    run = run_job(job, ranks, self.folder / folder, resume=(self.folder / folder / "run.json").is_file())
                train, valid, target = (table_outputs(model, table, config) for table in (self.train, self.valid, self.target))
        except InterruptedRunError as error:
            raise going_on(error, self.folder) from error
        except ZooError as error:  # of this candidate alone, such as a frozen backbone
            if name == BASELINE:
                raise
            self.progress.note(f"auto: {name} is left out: {error}")
            return Candidate(name, note=f"left out: {error}"), None
        seconds = time.monotonic() - began
        estimates.add(name, seconds)
        found = evidence(train, valid, np.asarray(self.valid.targets), target, seed=config.seed)
        told = f"accuracy {found.accuracy:.4f} on the source, infomax {found.infomax:.4f} on the target, {in_time_units(seconds)}"
        self.progress.note(f"auto: {name}: {told}{estimates.left(self.names[self.names.index(name) + 1 :])}")
        return Candidate(name, found, run.kept, seconds, folder), (valid, target)

    def _finish(self, best: Candidate, found: Sequence[Candidate], shift: Shift, differences: Sequence[str], reason: str) -> Run:
        written = take_over(self.folder, best.folder)
        record = self.record() | {
            "shift": asdict(shift),
            "differences": list(differences),
            "candidates": [one.row() for one in found],
            "reason": reason,
            "budget": self.budget,
            "seconds": round(time.monotonic() - self.started, 3),
        }
        assert FINISHED in written, "the chosen run is finished"
        write_run(self.folder, written | {"adaptation": record})
        if not self.job.config.keep_checkpoints:
            clear(self.folder, [one.folder for one in found if one.folder])
        self.load()
        run = read_finished(self.folder)
        assert run is not None, "the record of a finished run was written"
        return run
