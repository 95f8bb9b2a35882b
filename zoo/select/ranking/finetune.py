"""Short fine-tunes of the best candidates, all of the same length, judged on the held-out samples."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.data.table import Table
from zoo.engine.distributed.rendezvous import joined
from zoo.engine.inference.evaluate import evaluate
from zoo.engine.options.recipes import default_recipe
from zoo.engine.train.fit import run_job
from zoo.models.backbone import Backbone
from zoo.select.ranking.features import adapted
from zoo.select.ranking.row import Judged
from zoo.select.ranking.scoring import judge
from zoo.select.recipe_search.candidates import options_for
from zoo.select.recipe_search.halving import affordable
from zoo.select.recipe_search.trial import Trial
from zoo.tasks.find import find_task

FOLDER = "tuned"


def tuning_trials(backbones: Sequence[Backbone], tables: tuple[Table, Table], task: str, options: Mapping[str, Any]) -> list[Trial]:
    """Return a trial of the task's default recipe per candidate.

    Args:
        backbones: The candidates.
        tables: Samples to train on, and to judge by.
        task: Name of the task.
        options: The given options of a run.
    """
    recipe = default_recipe(task)
    trials = []
    for backbone in backbones:
        model = adapted(backbone, tables[0], task, int(options.get("seed") or 0))
        trial = Trial(model, recipe, options_for(recipe, options), quiet=True)
        trial.tables = tables
        trials.append(trial)
    return trials


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
    found = evaluate(job.model, valid, device=config.device, precision=config.precision, workers=config.workers)
    task = find_task(job.model.task)
    return judge(task, metric, found.outputs, valid.select(found.rows), seconds=seconds, epochs=length)
