"""The trials of a search: each a run in a folder of its own, stopped early where it cannot win."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.engine.distributed.rendezvous import joined
from zoo.engine.options.recipe import Recipe
from zoo.engine.preview.preview import untouched
from zoo.engine.rundir.run_folder import Run
from zoo.engine.runtime.progress import Progress, in_time_units
from zoo.engine.train.fit import run_job
from zoo.engine.train.job import Tables, resolve_job
from zoo.errors import DiskFullError, InterruptedRunError, TrainingError, ZooError
from zoo.models.task_model import TaskModel
from zoo.select.tuning_search.liveness import DIED, UNCOUNTED, counted, fail_dead, sign_of_life
from zoo.select.tuning_search.result import TrialResult, best_of
from zoo.select.tuning_search.space import Space
from zoo.select.tuning_search.study import suggested
from zoo.util.numbers import score_text

DEFAULT, NOTE, POINT, RECIPE, GO_ON = "default", "note", "options", "recipe", "folder"
INSIDE = "inside"  # whether the default recipe is a point of the space, from which the sampler can learn
_RECORDS = ("run.json", "metrics.jsonl", "curves.png")  # what stays of a trial that is not the best


class Trials:
    """Runs the trials of a study in this process.

    Args:
        model: The model; it is as before after each trial.
        options: Options that all trials have.
        space: What is searched.
        tables: Training and validation data.
        study: Optuna's study.
        folder: The folder of the search.
        monitor: The metric that judges.
        lower: Whether its lowest value is the best.
        progress: Prints a line per trial.
    """

    def __init__(
        self,
        model: TaskModel,
        options: Mapping[str, Any],
        space: Space,
        tables: Tables,
        study: Any,
        *,
        folder: Path,
        monitor: str,
        lower: bool,
        progress: Progress,
    ) -> None:
        self._model, self._options, self._space, self._tables, self._study = model, dict(options), space, tables, study
        self._folder, self._monitor, self._lower, self._progress = folder, monitor, lower, progress
        self._told = {result.number for result in self.results()}  # those of earlier calls

    def run_next(self) -> None:
        """Run one trial: the default recipe first, one that was cut off, or what the sampler suggests.

        Raises:
            ZooError: If the default recipe itself fails.
            InterruptedRunError: After a signal; the trial goes on when the search is resumed.
        """
        import optuna

        trial = self._study.ask()
        sign_of_life(trial)
        state = optuna.trial.TrialState
        default = bool(trial.user_attrs.get(DEFAULT))
        point = suggested(trial, self._space) if trial.user_attrs.get(INSIDE, True) else {}
        recipe, options = (self._space.default, {}) if default else self._space.options(point)
        trial.set_user_attr(RECIPE, recipe.name)
        trial.set_user_attr(POINT, point)
        try:
            known = None if default else self._equal(recipe, options)
            value = self._value(self.fit(recipe, options, self._folder_of(trial), trial)) if known is None else known.value
            trial.set_user_attr(NOTE, "" if known is None else f"the same as trial {known.number}")
            self._study.tell(trial, value)
        except optuna.TrialPruned:
            self._study.tell(trial, state=state.PRUNED)
            shutil.rmtree(self._folder_of(trial), ignore_errors=True)
        except (InterruptedRunError, DiskFullError, KeyboardInterrupt) as error:
            trial.set_user_attr(UNCOUNTED, "the disk was full" if isinstance(error, DiskFullError) else "stopped")
            self._study.tell(trial, state=state.FAIL)
            more = {DEFAULT: True, INSIDE: bool(point)} if default else {}
            self._study.enqueue_trial(dict(trial.params), user_attrs={GO_ON: self._folder_of(trial).name, **more})
            raise
        except ZooError as error:
            trial.set_user_attr(NOTE, str(error))
            self._study.tell(trial, state=state.FAIL)
            if default:
                raise
        except Exception as error:  # of the program or the machine, by no fault of the trial, which must not count as one that runs
            trial.set_user_attr(UNCOUNTED, f"{type(error).__name__}: {error}")
            self._study.tell(trial, state=state.FAIL)
            raise
        self.report()
        self._clear()

    def fail_dead(self) -> None:
        """Mark the trials of dead workers as failed; of their folders the records stay."""
        for number in fail_dead(self._study):
            self._strip(self._folder_of(self._study.get_trials(deepcopy=False)[number]))

    def enough(self, limit: int | None) -> bool:
        """Return whether there are as many trials as wanted, those that run included; None for no limit."""
        self.fail_dead()
        self.report()
        return limit is not None and len(counted(self._study)) >= limit

    def _value(self, run: Run) -> float:
        if self._monitor not in run.metrics:
            raise TrainingError(f"{self._monitor!r} has no value on the validation data; take another (monitor)")
        return float(run.metrics[self._monitor])

    def fit(self, recipe: Recipe, options: Mapping[str, Any], folder: Path, trial: Any = None) -> Run:
        """Fine-tune once, in a folder; with a trial its pruner is asked after each epoch."""
        given = self._options | dict(options)
        job = resolve_job(self._model, None, None, recipe=recipe, options=given, objective=None, quiet=True, advises=False)
        own = job.own if trial is None else replace(job.own, on_epoch=self._hook(trial, job.own.on_epoch))
        job = replace(job, open_data=lambda: self._tables, own=own)
        with untouched(self._model), joined(job.config.device, job.config.timeout) as ranks:
            thresholds = self._model.thresholds
            try:
                return run_job(job, ranks, folder, resume=(folder / "run.json").is_file())
            finally:
                self._model.thresholds = thresholds

    def _hook(self, trial: Any, further: Any) -> Any:
        def on_epoch(record: dict[str, Any]) -> None:
            import optuna

            if further is not None:
                further(record)
            sign_of_life(trial)
            if self._monitor in record:
                trial.report(record[self._monitor], record["epoch"])
                if not trial.user_attrs.get(DEFAULT) and trial.should_prune():
                    raise optuna.TrialPruned

        return on_epoch

    def _folder_of(self, trial: Any) -> Path:
        return self._folder / str(trial.user_attrs.get(GO_ON, f"trial-{trial.number}"))

    def _equal(self, recipe: Recipe, options: Mapping[str, Any]) -> TrialResult | None:
        """Return a complete trial with the same recipe and options; such as two probes, which have no options."""
        known = (one for one in self.results() if one.state == "complete" and not one.default and one.recipe == recipe.name)
        return next((one for one in known if self._space.options(one.options)[1] == dict(options)), None)

    def folders(self, result: TrialResult) -> list[Path]:
        """Return the folders in which the run of a trial may be."""
        trial = self._study.get_trials(deepcopy=False)[result.number]
        own = self._folder_of(trial)
        same = result.note.removeprefix("the same as trial ")
        return [own, self._folder / f"trial-{same}"] if same.isdigit() else [own]

    def again(self, result: TrialResult, folder: Path) -> Run:
        """Run a trial anew in a folder."""
        recipe, options = (self._space.default, {}) if result.default else self._space.options(result.options)
        return self.fit(recipe, options, folder)

    def results(self) -> list[TrialResult]:
        """Return all trials that have ended, without those that were stopped and go on under another number."""
        trials = (trial for trial in self._study.get_trials(deepcopy=False) if trial.user_attrs.get(UNCOUNTED, DIED) == DIED)
        return [result for trial in trials if (result := _result(trial)) is not None]

    def best(self) -> TrialResult | None:
        """Return the best complete trial."""
        return best_of(self.results(), lower=self._lower)

    def report(self) -> None:
        """Print a line for each trial that has ended since the last call, whichever worker ran it."""
        results = self.results()
        best = best_of(results, lower=self._lower)
        for result in results:
            if result.number not in self._told:
                self._told.add(result.number)
                self._progress.note(_line(result, self._monitor, best=best is not None and best.number == result.number))

    def _clear(self) -> None:
        """Remove the models of trials that have ended and are not the best; their records stay."""
        results = self.results()  # once: another worker may end a better trial meanwhile
        best = best_of(results, lower=self._lower)
        for result in results:
            folder = self.folders(result)[0]
            if (best is None or result.number != best.number) and (folder / "config.json").is_file():
                self._strip(folder)

    @staticmethod
    def _strip(folder: Path) -> None:
        """Remove everything but the records from the folder of a trial, which may be on another machine."""
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.name not in _RECORDS:
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def _line(result: TrialResult, monitor: str, *, best: bool) -> str:
    """Return what a trial reached, marked if it is the best so far."""
    if result.note == DIED:
        return f"trial {result.number}: failed, as {DIED}; another trial takes its place"
    value = "" if result.value is None else f" {monitor} {score_text(monitor, result.value)}"
    options = ", ".join(result.listed)
    what = "the default recipe" if result.default else f"{result.recipe}{f' ({options})' if options else ''}"
    note = f"; {result.note}" if result.note else ""
    state = "" if result.state == "complete" else f" {result.state}"
    return f"trial {result.number}: {what}:{value}{state}, {in_time_units(result.seconds)}{note}{', the best so far' if best else ''}"


def _result(trial: Any) -> TrialResult | None:
    import optuna

    states = {
        optuna.trial.TrialState.COMPLETE: "complete",
        optuna.trial.TrialState.PRUNED: "pruned",
        optuna.trial.TrialState.FAIL: "failed",
    }
    if trial.state not in states:
        return None
    reached = trial.intermediate_values
    value = trial.value if trial.value is not None else reached[max(reached)] if reached else None
    attributes = trial.user_attrs
    seconds = trial.duration.total_seconds() if trial.duration is not None else 0.0
    options = json.loads(json.dumps(attributes.get(POINT, {})))
    note, default = str(attributes.get(NOTE, attributes.get(UNCOUNTED, ""))), bool(attributes.get(DEFAULT))
    return TrialResult(trial.number, states[trial.state], value, str(attributes.get(RECIPE, "")), options, round(seconds, 3), default, note)
