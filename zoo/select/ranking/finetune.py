"""Short fine-tunes of the best candidates, all of the same length, judged on the held-out samples."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.data.table import Table
from zoo.engine.distributed.rendezvous import joined
from zoo.engine.inference.evaluate import evaluate
from zoo.engine.options.recipes import default_recipe
from zoo.engine.runtime.progress import in_time_units
from zoo.engine.runtime.signals import Stopped
from zoo.engine.train.fit import run_job
from zoo.engine.train.messages import SKIPPED
from zoo.errors import CorruptInputError, DataError, DiskFullError, InterruptedRunError, SavedModelError, ZooError, count
from zoo.models.backbone import Backbone
from zoo.plugins.loader import describe
from zoo.select.ranking.features import Conditions, adapted
from zoo.select.ranking.ranking import Ranking
from zoo.select.ranking.row import Judged, Row, file_of, write_row
from zoo.select.ranking.scoring import judge
from zoo.select.recipe_search.candidates import options_for
from zoo.select.recipe_search.halving import affordable
from zoo.select.recipe_search.trial import Trial
from zoo.tasks.find import find_task
from zoo.util.atomic_write import write_json
from zoo.util.numbers import score_text

FOLDER, PLAN = "tuned", "tuning.json"
OF_ALL = (Stopped, InterruptedRunError, DataError, CorruptInputError, DiskFullError)  # errors that are not of one candidate


@dataclass(frozen=True)
class FineTuning:
    """Fine-tunes the best candidates of a ranking, all for as many epochs as the time that is left allows.

    Which candidates and how long is kept in ``tuning.json``, so that a ranking that goes on tunes all of them equally long.

    Attributes:
        backbones: The candidates by name.
        tables: Samples to train on, and to judge by.
        conditions: What is the same for all candidates.
        options: The given options of a run.
        top: How many candidates may be tuned.
        left: Returns the seconds that are left.
        note: Prints a line.
    """

    backbones: Mapping[str, Backbone]
    tables: tuple[Table, Table]
    conditions: Conditions
    options: Mapping[str, Any]
    top: int
    left: Callable[[], float]
    note: Callable[[str], None]

    def rows(self, ranking: Ranking) -> list[Row]:
        """Return the rows of a ranking with the results of tuning; a candidate whose tuning fails keeps its row.

        Raises:
            SavedModelError: If ``tuning.json`` is damaged.
            InterruptedRunError: After Ctrl-C or SIGTERM.
        """
        rows = {row.name: row for row in ranking.rows}
        plan = _read_plan(ranking.dir)
        if plan is not None and plan["top"] == self.top and all(name in rows for name in plan["candidates"]):
            trials, length = self._trials(plan["candidates"]), plan["epochs"]
        else:
            shutil.rmtree(ranking.dir / FOLDER, ignore_errors=True)
            rows = {name: self._kept(row.with_tuned(None), ranking.dir) if row.tuned else row for name, row in rows.items()}
            trials, length = self._chosen(ranking)
            if length is None:
                left = in_time_units(max(self.left(), 0.0))
                if self.top:
                    self.note(f"none is fine-tuned: there are no two of the best that {left} suffice for")
                return list(rows.values())
            write_json(ranking.dir / PLAN, {"epochs": length, "candidates": list(trials), "top": self.top})
        self.note(f"fine-tuning for {count(length, 'epoch')}: {', '.join(trials)}")
        for name, trial in trials.items():
            rows[name] = self._tuned(rows[name], trial, length, ranking)
        return list(rows.values())

    def _chosen(self, ranking: Ranking) -> tuple[dict[str, Trial], int | None]:
        """Return the trials of the best candidates that nothing dominates, and their length; None if no two have the time."""
        dominated = set(ranking.dominated)
        able = [row.name for row in ranking.rows if row.name not in dominated and row.samples == ranking.best.samples][: self.top]
        trials = self._trials(able)
        while len(trials) > 1:
            if (length := common_length(list(trials.values()), self.left())) is not None:
                return trials, length
            trials.popitem()
        return trials, None

    def _trials(self, names: Sequence[str]) -> dict[str, Trial]:
        """Return a trial of the task's default recipe per candidate; those that cannot take two steps are left out, with a note."""
        task, recipe = self.conditions.task, default_recipe(self.conditions.task)
        found: dict[str, Trial] = {}
        for name in names:
            self.conditions.stop.poll()
            try:
                model = adapted(self.backbones[name], self.tables[0], task, int(self.options.get("seed") or 0))
                trial = Trial(model, recipe, options_for(recipe, self.options), quiet=True)
                trial.tables = self.tables
                trial.lengths  # noqa: B018  # takes the steps that are timed
            except OF_ALL:
                raise
            except Exception as error:  # of a plugin's model, whatever it is
                self._failed(name, error)
            else:
                found[name] = trial
        return found

    def _tuned(self, row: Row, trial: Trial, length: int, ranking: Ranking) -> Row:
        if row.tuned is not None and row.tuned.epochs == length:
            return row
        self.conditions.stop.poll()
        try:
            judged = fine_tune(trial, row.name, length, ranking.metric, ranking.dir)
        except OF_ALL:
            raise
        except Exception as error:
            self._failed(row.name, error)
            return row.with_tuned(None)
        self.note(f"{row.name}: fine-tuned, {ranking.metric} {score_text(ranking.metric, judged.score)}, {in_time_units(judged.seconds)}")
        return self._kept(row.with_tuned(judged), ranking.dir)

    def _kept(self, row: Row, folder: Path) -> Row:
        write_row(file_of(folder, row.name, row.samples), row)
        return row

    def _failed(self, name: str, error: Exception) -> None:
        self.note(f"{name} is not fine-tuned: {error if isinstance(error, ZooError) else describe(error)}")


def _read_plan(folder: Path) -> dict[str, Any] | None:
    path = folder / PLAN
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"epochs": int(record["epochs"]), "candidates": [str(name) for name in record["candidates"]], "top": int(record["top"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SavedModelError(f"{str(path)!r} cannot be read ({error}); remove it, and the best are tuned anew") from error


def common_length(trials: Sequence[Trial], seconds: float) -> int | None:
    """Return the longest length in epochs that all trials together can have in so much time; None if they cannot have the shortest."""
    lengths = trials[0].lengths
    return affordable(lengths, lengths[-1], lambda length: sum(trial.seconds(length) for trial in trials), seconds)


def fine_tune(trial: Trial, name: str, length: int, metric: str, folder: Path) -> Judged:
    """Run a trial and return its metric on the held-out samples; the run, a saved model, is in ``tuned/NAME``.

    Args:
        trial: The trial, with its data.
        name: Name of the candidate.
        length: Epochs.
        metric: The metric.
        folder: The folder of the ranking.
    """
    job = trial.job(None if length == trial.lengths[-1] else length)
    out = folder / FOLDER / re.sub(r"[^A-Za-z0-9.+-]", "_", name)
    started = time.perf_counter()
    with joined(job.config.device, job.config.timeout) as ranks:
        run_job(job, ranks, out, resume=(out / "run.json").is_file())
    seconds = time.perf_counter() - started
    assert trial.tables is not None, "given with the trial"
    valid = trial.tables[1]
    assert valid is not None, "candidates are not tuned without samples to judge by"
    config = job.config
    where: dict[str, Any] = {"device": config.device, "precision": config.precision, "workers": config.workers}
    found = evaluate(job.model, valid, **where, remedy=SKIPPED)
    task = find_task(job.model.task)
    return judge(task, metric, found.outputs, valid.select(found.rows), seconds=seconds, epochs=length)
