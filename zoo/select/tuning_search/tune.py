"""Search over the options of a run: the default recipe first, then what a sampler suggests, within trials or time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

from zoo.engine.cache.feature_memo import content_summary
from zoo.engine.loading.sources import check_tables, open_for_fit
from zoo.engine.loading.start_method import refuse_second_run
from zoo.engine.options.model_selection import resolve_monitor
from zoo.engine.options.recipe import Recipe, batch_size_for
from zoo.engine.options.recipes import default_recipe, resolve_recipe
from zoo.engine.rundir.run_folder import claim_folder, release_folder
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.signals import StopFlag, ending_early, going_on, stop_signals
from zoo.engine.train.fit import check_kinds
from zoo.engine.train.job import Job, Tables, resolve_job
from zoo.errors import InterruptedRunError, OptionError, TrainingError
from zoo.models.task_model import TaskModel
from zoo.select.log_once import each_message_once
from zoo.select.recipe_search.halving import seconds_of
from zoo.select.tuning_search.arguments import begun_search, hold_out_remedy
from zoo.select.tuning_search.keeping import best_run, importance_of
from zoo.select.tuning_search.liveness import UNCOUNTED
from zoo.select.tuning_search.picture import draw_tuning
from zoo.select.tuning_search.result import RECORD, Tuning
from zoo.select.tuning_search.space import Space, space_of
from zoo.select.tuning_search.study import is_over, open_study, set_deadline
from zoo.select.tuning_search.trials import DEFAULT, INSIDE, Trials
from zoo.tasks.find import find_task
from zoo.util.atomic_write import write_json

log = logging.getLogger("zoo")
Beside: TypeAlias = Callable[[Path, StopFlag], AbstractContextManager[Any]]
TRIALS = 20  # without a number of trials and a budget


def tune(
    model: TaskModel,
    train: Any,
    valid: Any = None,
    *,
    trials: int | None = None,
    budget: str | float | None = None,
    search: Mapping[str, Any] | None = None,
    only: Collection[str] | None = None,
    storage: str | None = None,
    study: str = "zoo",
    pruner: str = "median",
    recipe: str | Recipe | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Tuning:
    """Search for the options of ``fit`` that are the best on validation data, with Optuna; the model itself stays as it is.

    The first trial is the default recipe, so the best is never worse than it on the samples that judge. Then a tree-structured Parzen
    estimator suggests recipe, learning rate, layer decay, weight decay, batch size, frozen prefix, augmentation and rank of LoRA
    (Bergstra et al. 2011; multivariate, Falkner et al. 2018). Options that are given hold for all trials and are not searched.

    Args:
        model: The model; every trial starts from its values.
        train: As for ``fit``.
        valid: The judge, as for ``fit``; not False.
        trials: Number of trials, those of earlier calls included; 20 where neither is given.
        budget: Time of this call with all its workers, such as ``30min``; no trial begins after it.
        search: Own ranges and choices by name, such as ``{"lr": "1e-5..1e-2,log", "batch_size": [8, 16]}``.
        only: Names of the options to search, or one text with commas; None for all of the default space and of ``search``.
        storage: A journal file, an SQLite file (``.db``) or the URL of a database; None for a journal in the folder.
        study: Name of the study in its storage.
        pruner: ``median``, ``hyperband`` or ``none``: which trials are stopped after an epoch in which they are behind.
        recipe: One for all trials; None searches it.
        seed: Of the data, of the runs and of the sampler.
        out: The folder; None takes the next free one below ``runs/``.
        resume: Go on with the study.
        quiet: Show nothing.
        **options: As for ``fit``.

    Returns:
        The trials, the best of them as a run in the folder ``best``, and the importance of the options.

    Raises:
        MissingExtraError: If Optuna is not installed.
        OptionError: As ``fit``; for a space that cannot be searched, and ``valid=False``.
        SavedModelError: If the study is of other data, another backbone or another space.
        InterruptedRunError: After Ctrl-C or SIGTERM; the trial goes on when the search is resumed.
    """
    refuse_second_run()
    check_kinds(out, resume=resume, quiet=quiet)
    given, job = begun_search(
        "tune", model, options | {"seed": seed}, recipe=recipe, valid=valid, trials=trials, budget=budget, quiet=quiet
    )
    opening = partial(open_for_fit, model, train, valid, job.config)
    how: dict[str, Any] = {"trials": trials, "budget": budget, "search": search, "only": only, "storage": storage, "study": study}
    found = run_tuning(model, given, opening, recipe=recipe, **how, pruner=pruner, out=out, resume=resume, quiet=quiet)
    assert found is not None, "this process leads the search"
    return found


def run_tuning(
    model: TaskModel,
    options: Mapping[str, Any],
    open_tables: Callable[[], Tables],
    *,
    recipe: str | Recipe | None,
    trials: int | None,
    budget: str | float | None,
    search: Mapping[str, Any] | None,
    only: Collection[str] | None,
    storage: str | None,
    study: str,
    pruner: str,
    out: str | Path | None,
    resume: bool,
    quiet: bool,
    join: bool = False,
    beside: Beside | None = None,
) -> Tuning | None:
    """Search in a folder; see ``tune``. A process that joins a search returns None.

    Args:
        model: The model.
        options: The given options.
        open_tables: Opens the training and the validation data.
        recipe: One for all trials, or None.
        trials: Number of trials.
        budget: Time of this call.
        search: Own ranges and choices.
        only: Names of the options to search.
        storage: Where the study is.
        study: Its name.
        pruner: Name of the pruner.
        out: The folder.
        resume: Go on with the study.
        quiet: Show nothing.
        join: Run trials of a search that another process leads in this folder, and leave the end to it.
        beside: Returns a context in which other processes run trials; called with the folder, after the first trial.
    """
    default = resolve_recipe(recipe) if recipe is not None else default_recipe(model.task)
    fixed = dict(options) | ({"recipe": default.name} if recipe is not None else {})
    space = space_of(model, default, search or {}, only=only, given=fixed)
    job = resolve_job(model, None, None, recipe=default, options=dict(options), objective=None, quiet=quiet, advises=False)
    monitor, lower = _judge_of(job)
    folder = Path(str(out)) if join else claim_folder(out, model.spec.name, "tune", resume=resume, record=RECORD)
    inputs, labels = model.inputs, model.labels
    try:
        with ending_early(), each_message_once(), torch.inference_mode(False), torch.enable_grad():
            tables = _judged_tables(job, open_tables)
            known = _identity(model, job, tables, space, monitor=monitor)
            opened = open_study(storage, folder, study, known, lower=lower, pruner=pruner, seed=job.config.seed, resume=resume or join)
            progress = Progress(quiet, monitor)
            runner = Trials(model, options, space, tables, opened, folder=folder, monitor=monitor, lower=lower, progress=progress)
            limit, seconds = trials if trials is not None or budget is not None else TRIALS, seconds_of(budget)
            if not join:
                _prepare(runner, opened, space, tables, folder, known)
                set_deadline(opened, seconds)
            _search(runner, opened, folder, limit=limit, seconds=seconds, beside=None if join else beside)
            return None if join else _finish(runner, opened, folder, known, monitor=monitor, lower=lower)
    finally:
        model.inputs, model.labels = inputs, labels
        if not join:
            release_folder(folder, record=RECORD)


def _judge_of(job: Job) -> tuple[str, bool]:
    """Return the metric that judges trials, and whether its lowest value is the best."""
    task = find_task(job.model.task)
    monitor = resolve_monitor(job.config.monitor, task, job.own.metrics)
    return monitor, monitor in {*task.lower_is_better, *job.own.lower}


def _judged_tables(job: Job, open_tables: Callable[[], Tables]) -> Tables:
    """Return opened and checked data.

    Raises:
        OptionError: If there are no validation samples.
    """
    with hold_out_remedy():
        tables = check_tables(job.model, open_tables(), job.config)
    if tables[1] is None:
        raise OptionError("valid=False: trials are judged by held-out samples; give some, or leave it out")
    return tables


def _prepare(runner: Trials, study: Any, space: Space, tables: Tables, folder: Path, identity: dict[str, Any]) -> None:
    """Write the record, mark trials of dead workers, and put the default recipe first."""
    write_json(folder / RECORD, {"tune": identity, "finished": False})
    runner.fail_dead()
    there = (trial for trial in study.get_trials(deepcopy=False) if UNCOUNTED not in trial.user_attrs)
    if not any(trial.user_attrs.get(DEFAULT) for trial in there):
        point = space.defaults(batch_size_for(len(tables[0])))
        study.enqueue_trial(point or {}, user_attrs={DEFAULT: True, INSIDE: point is not None})


def _search(runner: Trials, study: Any, folder: Path, *, limit: int | None, seconds: float | None, beside: Beside | None) -> None:
    """Run trials until there are enough, the time of this call or of the one that leads is over, or a signal comes."""
    started = time.monotonic()

    def goes_on() -> bool:
        return not runner.enough(limit) and not is_over(study) and (seconds is None or time.monotonic() - started < seconds)

    try:
        with stop_signals() as stop:
            if goes_on():
                runner.run_next()
            with beside(folder, stop) if beside is not None and goes_on() else nullcontext():
                while goes_on() and not stop.signum:
                    runner.run_next()
            while goes_on() and not stop.signum:  # in the place of trials whose process died after the others had ended
                runner.run_next()
            if stop.signum and goes_on():
                error = InterruptedRunError(f"stopped by {stop.name} between two trials")
                error.exit_code = stop.exit_code
                raise error
    except InterruptedRunError as error:
        raise going_on(error, folder) from error


def _finish(runner: Trials, study: Any, folder: Path, identity: dict[str, Any], *, monitor: str, lower: bool) -> Tuning:
    """Keep the best trial as a run, and write the record and the pictures."""
    runner.fail_dead()
    runner.report()
    results, best = runner.results(), runner.best()
    if best is None:
        notes = {trial.note for trial in results if trial.note}
        raise TrainingError(f"no trial was completed: {'; '.join(sorted(notes)) or 'give it more time'}")
    found = Tuning(tuple(results), best_run(runner, best, folder), best, monitor, lower, folder, importance_of(study))
    rows = [vars(trial) for trial in results]
    content = {"tune": identity, "finished": True, "monitor": monitor, "best": best.number, "verdict": found.verdict}
    write_json(folder / RECORD, content | {"trials": rows, "importance": found.importance})
    draw_tuning(found)
    return found


def _identity(model: TaskModel, job: Job, tables: Tables, space: Space, *, monitor: str) -> dict[str, Any]:
    """Return what all trials of a study have in common."""
    data = {}
    for name, table in zip(("train", "valid"), tables, strict=True):
        told = content_summary(table) or {}
        data[name] = f"{told.get('samples')} samples, {told.get('sha256', '')[:16]}{told.get('content', '')[:16]}"
    # Trials have validation data, with which nothing is mixed for being few.
    left_out = {*space.dimensions, "recipe", "workers", "device", "mix_few"}
    fixed = {name: value for name, value in job.config.to_dict().items() if name not in left_out}
    return {
        "backbone": model.spec.name,
        "task": model.task,
        "head": model.head_name,
        "num_classes": model.num_classes,
        "train data": data["train"],
        "valid data": data["valid"],
        "space": space.describe(),
        "recipe": job.config.to_dict()["recipe"],
        "options": fixed,
        "monitor": monitor,
        "own parts": job.own.describe(),
    }
