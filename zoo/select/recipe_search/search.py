"""Runs of the candidates: the probe, then rounds of growing length, of which the better half goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.engine.distributed.rendezvous import joined
from zoo.engine.inference.confidence_intervals import drawn_metrics, exact_units, interval_of
from zoo.engine.inference.evaluate import evaluate
from zoo.engine.inference.metrics import drawn_groups
from zoo.engine.loading.sources import check_tables
from zoo.engine.preview.preview import untouched
from zoo.engine.rundir.run_folder import Run
from zoo.engine.runtime.progress import Progress, in_time_units
from zoo.engine.runtime.signals import StopFlag
from zoo.engine.train.fit import run_job
from zoo.engine.train.job import Job
from zoo.engine.train.messages import SKIPPED
from zoo.errors import DataError, InterruptedRunError, ZooError
from zoo.models.task_model import TaskModel
from zoo.saved.config import read_config
from zoo.select.recipe_search.folders import CANDIDATES, clear, read_budget, read_results, read_spent, write_choice, write_result
from zoo.select.recipe_search.halving import (
    PROBE,
    SHARES,
    Choice,
    Overheads,
    Pace,
    Result,
    affordable,
    choose,
    rows_of,
    survivors,
    usual_budget,
)
from zoo.select.recipe_search.trial import Trial
from zoo.tasks.find import find_task
from zoo.tasks.task import Task
from zoo.util.numbers import score_text


class Search:
    """Tries candidates in the folder of a choice.

    Args:
        model: The model; it is as before after each candidate.
        trials: The candidates, the probe first and the default recipe last.
        left_out: Why others are not tried, by their names.
        folder: The folder.
        started: When the choice began, by ``time.monotonic``: importing, opening the data and building the model are of its time.
        close: Does with a result what is done with the chosen one at the end, to measure how long that takes.
        budget: Seconds of all together; None for what an earlier call in the folder had, or for those of the probe and of
            ``DEFAULT_RUNS`` runs of the default recipe, at least ``LEAST_BUDGET``.
        progress: Prints a line per candidate.
        stop: Set by a signal.

    Attributes:
        results: Results of all runs so far, those of earlier calls in the same folder first.
        left_out: Why candidates were not tried, by their names.
        budget: Seconds of all together.
    """

    def __init__(
        self,
        model: TaskModel,
        trials: Sequence[Trial],
        left_out: dict[str, str],
        *,
        folder: Path,
        started: float,
        close: Callable[[Search, Result], None],
        budget: float | None,
        progress: Progress,
        stop: StopFlag,
    ) -> None:
        self._model, self._trials, self._folder = model, trials, folder
        self._progress, self._stop, self._close = progress, stop, close
        self.left_out, self.budget = dict(left_out), read_budget(folder) if budget is None else budget
        self.results = read_results(folder)
        self._started = started - read_spent(folder)
        self._pace, self._times = Pace(), Overheads()
        self._too_long: set[str] = set()
        job = trials[0].job()
        self._task, self._valid, self._config = find_task(model.task), job.open_data()[1], job.config
        if self._valid is not None and job.config.on_corrupt == "skip":  # each evaluation would else warn of what is left out
            self._valid = check_tables(model, job.open_data(), job.config)[1]
        self.monitor = progress.monitor
        self.lower = self.monitor in {*self._task.lower_is_better, *job.own.lower}

    def run(self) -> Choice:
        """Try what the budget allows and return the choice."""
        probe, *tuned = self._trials
        self._run(probe, None)
        if self._valid is None:
            return Choice(self.results[0], "the probe is kept: no samples could be held out to judge other candidates")
        with self._times.measured("end"), untouched(self._model):
            self._close(self, self.results[0])
        if self.budget is None:
            self.budget = usual_budget(self.spent + self._times.end, self._trials[-1].preview.seconds)
        if self.seconds_left <= 0 and len(self.results) == 1:  # a resumed choice may have tried others before
            reason = (
                f"the probe alone took {in_time_units(self.spent)} with its dry run and evaluation, "
                f"and the budget is {in_time_units(self.budget)}"
            )
            self.left_out |= dict.fromkeys((trial.name for trial in tuned), reason)
            return Choice(self.results[0], f"the probe is kept: {reason}, so nothing else was tried")
        # Additions such as LoRA come behind the default recipe: they often cost as much, and a budget may not suffice for both.
        self._rounds(sorted(tuned, key=lambda trial: trial.recipe.trains != "all"))
        if len(self.results) == 1 and self._too_long >= {trial.name for trial in tuned}:
            reason = f"the budget of {in_time_units(self.budget)} suffices for nothing else, not even for the shortest run"
            return Choice(self.results[0], f"the probe is kept: {reason}")
        return choose(self.results, self.monitor, lower=self.lower)

    @property
    def spent(self) -> float:
        """Seconds so far, those of earlier calls included."""
        return time.monotonic() - self._started

    @property
    def seconds_left(self) -> float:
        """Seconds of the budget that are left, without those of the end."""
        return (self.budget or 0.0) - self.spent - self._times.end

    def _rounds(self, alive: list[Trial]) -> None:
        for number in range(len(SHARES)):
            found = []
            for trial in alive:
                if (result := self._run_in_round(trial, number if len(alive) > 1 else len(SHARES) - 1)) is not None:
                    found.append(result)
            better = [result.name for result in survivors(found, lower=self.lower)]
            alive = sorted((trial for trial in alive if trial.name in better), key=lambda trial: better.index(trial.name))

    def _run_in_round(self, trial: Trial, number: int) -> Result | None:
        """Return the result of a candidate in a round, of a shorter run where the time is short; None if it was not tried, or failed."""
        before = [result for result in self.results if result.name == trial.name]
        try:
            if not before and self.seconds_left <= self._times.dry_run:
                self._leave_out(trial, f"{self._left()} of the budget were left, too little to measure what it would take")
                return None
            lengths = self._measured_lengths(trial)
            wanted = lengths[min(number, len(lengths) - 1)]
            length = affordable(lengths, wanted, lambda length: self._seconds(trial, length), self.seconds_left)
            known = [result for result in before if result.epochs == wanted or (length is not None and result.epochs >= length)]
            if known or length is None:
                if not before:
                    shortest = in_time_units(self._seconds(trial, lengths[0]))
                    self._leave_out(trial, f"it would take about {shortest}, and {self._left()} were left")
                usable = known or before
                return usable[-1] if usable else None
            return self._run(trial, None if length == lengths[-1] else length)
        except InterruptedRunError as error:
            if not error.out_of_time:
                raise
            self._leave_out(trial, f"its run was stopped, as it took longer than estimated and the budget of {self._total()} was over")
            return before[-1] if before else None
        except Exception as error:  # of this candidate alone, such as memory, LoRA without PEFT, or a fault of PEFT; the others go on
            self.left_out[trial.name] = str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"
            self._progress.note(f"auto: {trial.name} is left out: {self.left_out[trial.name]}")
            return None

    def _leave_out(self, trial: Trial, why: str) -> None:
        """Note that the budget does not suffice for a candidate."""
        self._too_long.add(trial.name)
        self.left_out[trial.name] = why
        self._progress.note(f"auto: {trial.name} is left out: {why}")

    def _seconds(self, trial: Trial, length: int) -> float:
        """Return the estimated time of a run of so many epochs, with that of judging it."""
        return trial.seconds(length) * self._pace.ratio + self._times.judging

    def _total(self) -> str:
        return in_time_units(self.budget or 0.0)

    def _left(self) -> str:
        return in_time_units(max(0.0, self.seconds_left))

    def _measured_lengths(self, trial: Trial) -> tuple[int, ...]:
        """Return the lengths of a candidate, after a dry run where there was none yet."""
        with self._times.measured("dry_run"):
            lengths = trial.lengths
        return lengths

    def _run(self, trial: Trial, length: int | None) -> Result:
        """Run a candidate for so many epochs, or wholly, unless an earlier call did."""
        name = trial.name if length is None else f"{trial.name}-{length}-epochs"
        folder = f"{CANDIDATES}/{name}"
        for result in self.results:
            if result.folder == folder:
                return result
        self._progress.note(f"auto: {name}")
        self._measured_lengths(trial)  # of the probe too, whose dry run tells what those of the others take at the least
        job, memory = trial.job(length), trial.memory
        # The probe is always there to be kept.
        deadline = math.inf if trial.name == PROBE else time.monotonic() + self.seconds_left - self._times.judging
        resume = (self._folder / folder / "run.json").is_file()
        with untouched(self._model):
            thresholds = self._model.thresholds
            started = time.monotonic()
            with joined(job.config.device, job.config.timeout) as ranks:
                try:
                    run = run_job(job, ranks, self._folder / folder, resume=resume, deadline=deadline)
                except InterruptedRunError as error:
                    if error.out_of_time:
                        clear(self._folder, [folder])
                    raise
            seconds = max(time.monotonic() - started, sum(record["seconds"] for record in run.history))
            self._model.thresholds = tuple(read_config(run.dir).zoo.thresholds) or None
            with self._times.measured("judging"):
                result = self._result(trial, run, seconds=seconds, memory=memory, folder=folder, job=job)
            self._model.thresholds = thresholds
        self._add(trial, result)
        return result

    def _result(self, trial: Trial, run: Run, *, seconds: float, memory: int, folder: str, job: Job) -> Result:
        draws, units = self._draws(job)
        low, high = interval_of([] if draws is None else draws, units=units) or (None, None)
        epochs = sum(record.get("train_loss") is not None for record in run.history)
        return Result(
            name=trial.name,
            recipe=trial.recipe.name,
            epochs=epochs,
            whole=folder == f"{CANDIDATES}/{trial.name}",
            score=run.metrics.get(self.monitor, float("nan")),
            low=low,
            high=high,
            seconds=round(seconds, 3),
            memory=memory,
            trained=trial.trained,
            folder=folder,
            thresholds=self._model.thresholds,
            draws=draws,
            tuned=self._best_of_tuning(run),
        )

    def _best_of_tuning(self, run: Run) -> float:
        """Return the best score of the epochs after the head alone; NaN where there are none."""
        values = [record.get(self.monitor, float("nan")) for record in run.history if record["phase"] != PROBE]
        known = [value for value in values if not math.isnan(value)]
        return (min(known) if self.lower else max(known)) if known else float("nan")

    def _draws(self, job: Job) -> tuple[tuple[float, ...] | None, tuple[int, ...]]:
        """Return the monitored metric in the draws of the bootstrap, and its ``exact_units``.

        The draws are empty for a single group of samples, and None without intervals.
        """
        if self._valid is None or type(self._task).weighted_metrics is Task.weighted_metrics:
            return None, ()
        config = job.config
        on_error = "skip" if config.on_corrupt == "skip" else "stop"
        where: dict[str, Any] = {"device": config.device, "precision": config.precision, "workers": config.workers}
        found = evaluate(self._model, self._valid, on_error=on_error, **where, remedy=SKIPPED)
        read = self._valid.select(found.rows)
        task, targets, groups = self._task.name, np.asarray(read.targets), drawn_groups(read)
        try:
            drawn = drawn_metrics(task, found.outputs, targets, groups=groups, thresholds=self._model.thresholds)
        except DataError:
            return (), ()
        if self.monitor not in drawn:
            return None, ()
        return tuple(drawn[self.monitor].tolist()), exact_units(task, self.monitor, targets, groups)

    def _add(self, trial: Trial, result: Result) -> None:
        self.results.append(result)
        write_result(self._folder, len(self.results), result)
        if trial.name != PROBE:
            self._pace.add(trial.seconds(result.epochs), result.seconds)
        value, *ends = (None if each is None else score_text(self.monitor, each) for each in (result.score, result.low, result.high))
        interval = "" if result.low is None else " [{}, {}]".format(*ends)
        self._progress.note(f"auto: {trial.name}: {self.monitor} {value}{interval}, {in_time_units(result.seconds)}")
        self.write()
        if not self._config.keep_checkpoints:
            clear(self._folder, [one.folder for one in self.results if one not in self._eligible()])
        if self._stop.signum:
            error = InterruptedRunError(f"stopped by {self._stop.name} after candidate {result.name!r}")
            error.exit_code = self._stop.exit_code
            raise error

    def _eligible(self) -> list[Result]:
        """Return the results that can still be chosen: the probe's, and the best of the others."""
        best = survivors(self.results[1:], lower=self.lower)[:1]
        return [self.results[0], *best]

    def write(self, choice: Choice | None = None) -> dict[str, Any]:
        """Write ``auto.json`` and return its content."""
        content = {
            "budget": self.budget,
            "seconds": round(self.spent, 3),
            "monitor": self.monitor,
            "chosen": choice and choice.result.name,
            "reason": choice and choice.reason,
            "candidates": self.rows(choice),
        }
        write_choice(self._folder, content)
        return content

    def rows(self, choice: Choice | None) -> list[dict[str, Any]]:
        """Return one row per candidate: its best run, with the seconds of all its runs; those that were left out last."""
        return rows_of(self.results, self.left_out, choice, lower=self.lower)
