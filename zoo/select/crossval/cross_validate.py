"""Cross-validation of a model: every fold is a run like any other, and what is frozen is computed once for all of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.data.splits.folds import FOLDS, Fold, check_numbers, cross_validation_folds, digest_of, division_name
from zoo.data.table import Table, split_word
from zoo.engine.cache.feature_memo import content_summary
from zoo.engine.loading.sources import check_tables, inputs_in_use, open_for_fit
from zoo.engine.loading.start_method import refuse_second_run
from zoo.engine.options.begun import biases_as_begun
from zoo.engine.options.config import sized_for
from zoo.engine.options.model_selection import resolve_monitor
from zoo.engine.options.recipe import Recipe
from zoo.engine.rundir.run_folder import claim_folder, environment, release_folder
from zoo.engine.runtime.launch_env import launched
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.signals import ending_early, going_on, stop_signals
from zoo.engine.train.fit import check_kinds
from zoo.engine.train.job import Job, resolve_job
from zoo.engine.train.messages import name_whole
from zoo.errors import InterruptedRunError, OptionError, OwnPartError, check_together, count, fault_list
from zoo.models.task_model import TaskModel
from zoo.saved.ensemble import write_ensemble
from zoo.select.crossval.fold_runs import FoldRuns
from zoo.select.crossval.picture import draw_folds
from zoo.select.crossval.predictions import metrics_of_all, write_predictions
from zoo.select.crossval.result import RECORD, CrossValidation, check_same, content_of, folds_in, read_record, read_result
from zoo.select.log_once import each_message_once
from zoo.tasks.find import find_task
from zoo.trust.metric_table import METRICS, find_metrics
from zoo.util.atomic_write import write_json

log = logging.getLogger("zoo")


def cross_validate(
    model: TaskModel,
    data: Any,
    *,
    folds: Any = FOLDS,
    repeats: int = 1,
    group: str | None = None,
    metric: str | None = None,
    inner_valid: bool = False,
    recipe: str | Recipe | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    **options: Any,
) -> CrossValidation:
    """Fine-tune a model once per fold and measure it on the samples that were held out; the model itself stays as it is.

    The folds are stratified by class, never divide a group or samples of equal content, and are a function of the seed. Held-out
    samples choose nothing: each run keeps its last epoch, unless ``inner_valid``. Rows of a split called test are left out.

    Args:
        model: The model; every fold starts from its values.
        data: Any source with labels, see ``zoo.data.open.open_data``.
        folds: Their number, a splitter of scikit-learn, or pairs of arrays of rows (train, held out).
        repeats: Number of divisions with seeds of their own.
        group: Column of the groups, such as patients; short for ``columns={"group": …}``.
        metric: The metric that is compared and drawn; None for the first of the task.
        inner_valid: Hold out a fifth of each fold's training samples, by which the best epoch and thresholds are chosen.
        recipe: As for ``fit``, but not ``auto``.
        seed: Of the folds and of the runs.
        out: The folder; None takes the next free one below ``runs/``.
        resume: Go on at the fold where the cross-validation in ``out`` stopped.
        quiet: Show nothing.
        **options: As for ``fit``.

    Returns:
        Scores of the folds, their means with intervals, and the folder.

    Raises:
        OptionError: As ``fit``; for ``recipe="auto"``, several processes, and a metric that the task does not have.
        DataError: As ``fit``, and for fewer samples, groups or samples of the largest class than folds.
        LeakError: If folds of a splitter, or given ones, divide a group, and ``allow_leak`` is not set.
        SavedModelError: If the cross-validation that is resumed had other options, data or folds.
        InterruptedRunError: After Ctrl-C or SIGTERM.
    """
    refuse_second_run()
    check_kinds(out, resume=resume, quiet=quiet, inner_valid=inner_valid)
    if not isinstance(model, TaskModel):
        raise OptionError(f"cross_validate takes a model, and got {type(model).__name__}; give zoo.get(name).adapt(num_classes)")
    if recipe == "auto":
        raise OptionError("recipe='auto' would choose anew in every fold; name the recipe, and compare two by zoo compare")
    if group is not None:
        options["columns"] = {**(options.get("columns") or {}), "group": group}
    given, valid = options | {"seed": seed}, None if inner_valid else False
    job = resolve_job(model, data, valid, recipe=recipe, options=given, objective=given.pop("objective", None), quiet=quiet)
    job = replace(job, open_data=partial(open_for_fit, model, data, False, job.config))
    return run_folds(job, folds=folds, repeats=repeats, metric=metric, inner_valid=inner_valid, out=out, resume=resume)


def run_folds(
    job: Job, *, folds: Any, repeats: int, metric: str | None, inner_valid: bool, out: str | Path | None, resume: bool
) -> CrossValidation:
    """Cross-validate a job whose data are all samples; see ``cross_validate``.

    Args:
        job: The job; ``open_data`` returns all samples, and no validation data.
        folds: As for ``cross_validate``.
        repeats: As for ``cross_validate``.
        metric: As for ``cross_validate``.
        inner_valid: As for ``cross_validate``.
        out: The folder.
        resume: Go on in it.
    """
    model, config = job.model, job.config
    given = job
    *_, job = check_together(
        "this cross-validation cannot run:",
        lambda: _refuse(given),
        lambda: check_numbers(folds, repeats),
        lambda: _measuring(given, metric),
    )
    metric = resolve_monitor(metric or config.monitor, find_task(model.task), job.own.metrics, name="metric" if metric else "monitor")
    inputs, labels = model.inputs, model.labels
    folder = claim_folder(out, model.spec.name, f"{config.recipe.name}-cv", resume=resume, record=RECORD)
    try:
        # What concerns the table or the options holds for all folds.
        with ending_early(), each_message_once(), torch.inference_mode(False), torch.enable_grad():
            table = check_tables(model, (without_test(job.open_data()[0]), None), config)[0]
            parts = cross_validation_folds(table, folds, repeats=repeats, seed=config.seed, allow_leak=config.allow_leak)
            model.inputs, model.labels = inputs_in_use(model, config, table), model.labels or table.classes or None
            config = sized_for(config, min(len(fold.train) for fold in parts))
            job = replace(job, config=config if (begun := read_record(folder)) is None else biases_as_begun(config, begun["config"]))
            how = {"folds": len(parts) // repeats, "repeats": repeats, "division": division_name(table, folds), "inner_valid": inner_valid}
            record = _record(job, table, how | {"sha256": digest_of(parts)})
            check_same(folder, record)
            return _run(job, table, parts, folder, record, metric=metric)
    finally:
        model.inputs, model.labels = inputs, labels
        release_folder(folder, record=RECORD)


def _measuring(job: Job, metric: str | None) -> Job:
    """Return the job with a metric that is measured on request only.

    Raises:
        OptionError: If the task does not have the metric.
    """
    task, own = find_task(job.model.task), job.own
    if metric is None or metric in {*task.monitors, *own.metrics} or task.name not in METRICS:
        return job  # of several tasks all metrics are measured anyway
    more = find_metrics(task.name, [metric], job.model.num_classes)
    lower = own.lower | {name for name, one in more.items() if one.lower}
    return replace(job, own=replace(own, metrics={**own.metrics, **more}, lower=lower))


def without_test(table: Table) -> Table:
    """Return the rows of a table that are of no split called test, without their splits."""
    if table.splits is None:
        return table
    free = [row for row, split in enumerate(table.splits) if split_word(split) != "test"]
    if left_out := len(table) - len(free):
        log.info("%s: %s of the split called test are left out of the folds", table.source, count(left_out, "row"))
    return replace(table.select(free), splits=None)


def _run(job: Job, table: Table, parts: Sequence[Fold], folder: Path, record: dict[str, Any], *, metric: str) -> CrossValidation:
    progress = Progress(job.quiet, metric)
    before = read_record(folder)
    if (finished := read_result(folder)) is not None and finished.metric == metric:
        progress.note(f"the cross-validation in {str(folder)!r} is finished, with nothing left to run: this is its result")
        return finished
    known = {result.fold: result for result in folds_in(before)} if before else {}
    write_json(folder / RECORD, record | {"result": content_of(list(known.values()), metric=metric, metrics={}, finished=False)})
    inner = bool(record["cv"]["inner_valid"])
    try:
        with stop_signals() as stop:
            runs = FoldRuns(job, table, parts, folder, inner=inner, progress=progress, stop=stop)
            for number in range(len(parts)):
                result = runs.run(number, known.get(number))
                if number not in known:
                    done = content_of(runs.results, metric=metric, metrics={}, finished=False)
                    write_json(folder / RECORD, record | {"result": done})
                    runs.report(result)
    except InterruptedRunError as error:
        raise going_on(error, folder) from error
    except OwnPartError as error:
        name_whole(error, folder)
        raise
    return _finish(job, table, folder, record, runs=runs, metric=metric)


def _finish(job: Job, table: Table, folder: Path, record: dict[str, Any], *, runs: FoldRuns, metric: str) -> CrossValidation:
    """Write the predictions, the record and the picture."""
    metrics = metrics_of_all(runs.parts, job.own, table)
    write_predictions(folder, runs.parts, table)
    write_ensemble(folder, [result.folder for result in runs.results])
    write_json(folder / RECORD, record | {"result": content_of(runs.results, metric=metric, metrics=metrics, finished=True)})
    found = CrossValidation(tuple(runs.results), metric, metrics, folder)
    if np.isfinite(found.values(metric)).any():
        draw_folds(found)
    return found


def _refuse(job: Job) -> None:
    """Check that nothing contradicts several runs in one process.

    Raises:
        OptionError: Naming all that does.
    """
    faults = ["several processes: the folds run one after the other in one; leave --num-processes out"] if launched() > 1 else []
    if job.objective is not None:
        faults.append("objective: its data are not those of the folds; fit each fold by itself")
    if job.config.shard:
        faults.append("shard: it needs several processes")
    if job.own.log_with:
        faults.append("log_with: a tracker follows one run, and there is one per fold")
    if faults:
        raise OptionError(fault_list("a cross-validation cannot run with these:", faults))


def _record(job: Job, table: Table, how: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same when a cross-validation is resumed, and the versions."""
    model = job.model
    described = {"backbone": model.spec.name, "task": model.task, "num_classes": model.num_classes, "head": model.head_name}
    described |= {"own": job.own.describe()}
    record = {"cv": how, "config": job.config.to_dict(), "model": described, "data": content_summary(table) or {}}
    record["versions"] = environment(model.plugin.partition(" ")[0])
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain
