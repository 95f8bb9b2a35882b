"""``DomainAdaptation(target, method="auto")``: several methods in runs of their own, and a choice without labels of the target."""

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
import torch

from zoo.engine.distributed.rendezvous import joined
from zoo.engine.loading.sources import check_tables, inputs_in_use, summary
from zoo.engine.loading.start_method import refuse_second_run
from zoo.engine.preview.preview import untouched
from zoo.engine.rundir.run_folder import FINISHED, Run, claim_folder, read_finished, release_folder, write_run
from zoo.engine.runtime.launch_env import launched
from zoo.engine.runtime.progress import Progress, in_time_units
from zoo.engine.runtime.signals import ending_early
from zoo.engine.train.fit import check_kinds, run_job
from zoo.engine.train.job import Job, resolve_job
from zoo.errors import DataError, InterruptedRunError, OptionError, ZooError, fault_list
from zoo.models.task_model import TaskModel
from zoo.saved.tensors import read_state
from zoo.select.recipe_search.auto import each_message_once
from zoo.select.recipe_search.folders import CANDIDATES, clear, take_over
from zoo.select.recipe_search.halving import seconds_of
from zoo.tasks.find import find_task
from zoo.transfer.domain.alignments import KINDS
from zoo.transfer.domain.choice import BASELINE, Candidate, chosen_of
from zoo.transfer.domain.choice_record import finished_choice
from zoo.transfer.domain.evidence import Seen, evidence, see
from zoo.transfer.domain.shift import Shift, measure_shift, named_differences, predicted_differences
from zoo.transfer.domain.target import check_other, open_target
from zoo.transfer.domain.validators import softmax

log = logging.getLogger("zoo")
DEFAULT = (BASELINE, "coral", "dan", "cdan-e", "mcc")


def fit_adapted(
    model: TaskModel,
    train: Any,
    valid: Any = None,
    *,
    objective: Any,
    recipe: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Fine-tune a model in place by the method that validators prefer, without labels of the target.

    Each method has a run of its own. A method replaces ``source-only`` if it is no worse on held-out samples of the source by more
    than noise and most validators prefer it; of several such, the one with the best mean rank is chosen.

    Args:
        model: The model, for a task of one class per sample.
        train: Labelled data of the source, as for ``fit``.
        valid: Held-out data of the source, as for ``fit``; must not be False.
        objective: A ``DomainAdaptation`` with the method ``auto``.
        recipe: As for ``fit``, as are the following.
        out: Folder of the run; the candidates' runs are below it.
        resume: Go on where the choice in ``out`` stopped; candidates that are finished are not run again.
        quiet: Show nothing.
        **options: As for ``fit``; they hold for every candidate.

    Returns:
        The chosen run, with ``candidates`` and ``choice``.

    Raises:
        OptionError: As ``fit``, and for options that contradict the choice.
        DataError: As ``fit``, and if the target is the source.
        InterruptedRunError: After Ctrl-C or SIGTERM.
    """
    refuse_second_run()
    check_kinds(out, resume=resume, quiet=quiet)
    if valid is False:
        raise OptionError("valid=False: method 'auto' needs held-out samples of the source; give some, or leave it out")
    job = resolve_job(model, train, valid, recipe=recipe, options=options, objective=objective, quiet=quiet)
    with each_message_once():
        return run_adapted(job, objective, out, resume=resume)


def run_adapted(job: Job, options: Any, out: str | Path | None, *, resume: bool) -> Run:
    """Fine-tune the model of a job by the method that validators prefer; see ``fit_adapted``.

    Args:
        job: The model, the data and the configuration of every candidate.
        options: The ``DomainAdaptation``.
        out: Folder of the run.
        resume: Go on in it.
    """
    seconds = seconds_of(options.budget)
    if faults := _faults(job):
        raise OptionError(fault_list("method 'auto' cannot run like this:", faults))
    folder = claim_folder(out, job.model.spec.name, "adapt", resume=resume)
    try:
        with ending_early(), torch.inference_mode(False), torch.enable_grad():
            comparison = _Comparison(job, options, folder, seconds)
            if (folder / "run.json").is_file() and (finished := finished_choice(folder, comparison.record())) is not None:
                comparison.load()
                return finished
            return comparison.run()
    finally:
        release_folder(folder)


def _faults(job: Job) -> list[str]:
    faults = []
    if not find_task(job.model.task).exclusive:
        faults.append(f"the task is {job.model.task}, and the validators need one class per sample; name a method")
    if launched() > 1:
        faults.append("the candidates run in one process; leave --num-processes out, or name a method")
    if job.own.log_with:
        faults.append("log_with: a tracker follows one run, and several are made; name a method")
    return faults


@dataclass
class _Comparison:
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
        self.target = open_target(model, self.options.target, ready_made=self.train.ready_made)
        check_other(self.train, self.target)
        self.progress, self.started = Progress(self.job.quiet, f"target_{self.options.validator}"), time.monotonic()
        self.longest = 0.0

    def run(self) -> Run:
        """Run the candidates and take over the chosen one."""
        write_run(self.folder, {"adaptation": self.record()})
        shift = self._shift()
        differences = named_differences(self.job.model, self.train, self.options.target)
        for line in (str(shift), *differences):
            self.progress.note(f"auto: {line}")
        names = dict.fromkeys([BASELINE, *(self.options.candidate_names() or DEFAULT)])
        found, seen = [], {}
        for name in names:
            candidate, target = self._candidate(name)
            found.append(candidate)
            if target is not None:
                seen[name] = target
        found, reason = chosen_of(found)
        best = next(one for one in found if one.chosen)
        more = predicted_differences(self.train.classes, *(softmax(one.logits) for one in seen[best.method]))
        for line in (*more, reason):
            self.progress.note(f"auto: {line}")
        return self._finish(best, found, shift, [*differences, *more], reason)

    def record(self) -> dict[str, Any]:
        """Return what must be the same when a choice is resumed, as plain data."""
        options = {name: value for name, value in self.options.describe().items() if name not in ("target", "budget")}
        plain: dict[str, Any] = json.loads(json.dumps({"options": options, "target": summary(self.target)}))
        return plain

    def load(self) -> None:
        """Give the model the values of the chosen run, and the inputs and class names of the source, in place."""
        model = self.job.model
        model.load_state_dict(read_state(self.folder))
        model.inputs, model.labels = inputs_in_use(model, self.job.config, self.train), model.labels or self.train.classes or None

    def _shift(self) -> Shift:
        """Return the shift of the features that the model has before it is trained."""
        model, config = self.job.model, self.job.config
        with untouched(model):
            model.inputs = inputs_in_use(model, config, self.train)
            source, target = (see(model, table, config).features for table in (self.train, self.target))
        return measure_shift(source, target, seed=config.seed)

    def _candidate(self, name: str) -> tuple[Candidate, tuple[Seen, Seen] | None]:
        """Run a candidate, or leave it out; return also what it makes of the held-out source and of the target."""
        spent = time.monotonic() - self.started
        if self.budget is not None and name != BASELINE and spent + self.longest > self.budget:
            left = in_time_units(max(0.0, self.budget - spent))
            return Candidate(name, note=f"left out: it would take about {in_time_units(self.longest)}, and {left} were left"), None
        spectral = self.options.spectral if KINDS[name].make else 0.0  # it is added to methods that align features
        method = dataclasses.replace(self.options, method=name, spectral=spectral, candidates=None, budget=None)
        model, config, folder = self.job.model, self.job.config, f"{CANDIDATES}/{name}"
        job = replace(self.job, objective=method, open_data=lambda: self.opened)
        self.progress.note(f"auto: {name}")
        began = time.monotonic()
        try:
            with untouched(model):
                with joined(config.device, config.timeout) as ranks:
                    run = run_job(job, ranks, self.folder / folder, resume=(self.folder / folder / "run.json").is_file())
                train, valid, target = (see(model, table, config) for table in (self.train, self.valid, self.target))
        except InterruptedRunError:
            raise
        except ZooError as error:  # of this candidate alone, such as a frozen backbone
            if name == BASELINE:
                raise
            self.progress.note(f"auto: {name} is left out: {error}")
            return Candidate(name, note=f"left out: {error}"), None
        seconds = time.monotonic() - began
        self.longest = max(self.longest, seconds)
        found = evidence(train, valid, np.asarray(self.valid.targets), target, seed=config.seed)
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
