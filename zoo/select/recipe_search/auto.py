"""``fit(recipe="auto")``: try how much of the backbone should train, and keep the best."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from zoo.engine.loading.class_counts import monitor_of
from zoo.engine.loading.sources import check_tables, open_for_fit
from zoo.engine.loading.start_method import refuse_second_run
from zoo.engine.options.begun import option_differences
from zoo.engine.options.model_selection import resolve_monitor
from zoo.engine.rundir.run_folder import Run, claim_folder, read_finished, release_folder, write_run
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.signals import ending_early, going_on, stop_signals
from zoo.engine.train.fit import check_kinds
from zoo.engine.train.job import Tables
from zoo.engine.train.messages import name_whole
from zoo.engine.train.record import data_difference, data_record
from zoo.errors import HoldOutError, InterruptedRunError, OptionError, OwnPartError, SavedModelError, fault_list
from zoo.models.task_model import TaskModel
from zoo.select.log_once import each_message_once
from zoo.select.recipe_search.candidates import check_auto
from zoo.select.recipe_search.folders import CANDIDATES, clear, take_over
from zoo.select.recipe_search.halving import Choice, Result, seconds_of
from zoo.select.recipe_search.picture import draw_candidates
from zoo.select.recipe_search.search import Search
from zoo.select.recipe_search.take_values import take_values
from zoo.select.recipe_search.trial import Trial, list_trials
from zoo.tasks.find import find_task

log = logging.getLogger("zoo")


def fit_auto(
    model: TaskModel,
    train: Any,
    valid: Any = None,
    *,
    budget: str | float | None,
    recipe: Any = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    objective: Any = None,
    **options: Any,
) -> Run:
    """Fine-tune a model in place by the recipe that is the best on held-out samples, within a budget of time.

    The probe comes first, then the last groups, half of the groups, LoRA and the default recipe, in rounds of growing length of
    which the better half goes on (successive halving). The probe is kept where none beats it by more than noise; see
    docs/defaults.md. The chosen model is not retrained: a run with the same seed would give the same weights.

    Args:
        model: The model.
        train: As for ``zoo.engine.train.fit.fit``.
        valid: Validation data, as for ``fit``; must not be False.
        budget: A duration, such as ``10min``, or seconds; None for the time of the probe and of four runs of the default recipe,
            at least a minute. A resumed choice without one has that of before.
        recipe: ``auto``; another is refused, as a budget is for choosing.
        out: As for ``fit``; the candidates' runs are below it.
        resume: Go on where the choice in ``out`` stopped; candidates that are finished are not run again.
        quiet: Show nothing.
        objective: Must be None.
        **options: As for ``fit``; they hold for every candidate that accepts them.

    Returns:
        The chosen run, with ``candidates`` and ``choice``.

    Raises:
        OptionError: As ``fit``, and for options that contradict the choice.
        DataError: As ``fit``.
        InterruptedRunError: After Ctrl-C or SIGTERM.
    """
    started = time.monotonic()
    refuse_second_run()
    check_kinds(out, resume=resume, quiet=quiet)
    seconds, given = check_arguments(valid, budget, recipe, options | {"objective": objective})
    with each_message_once():
        config = list_trials(model, given, quiet=True)[0][-1].config
        opening = partial(open_with_hold_out, *(partial(open_for_fit, model, train, judge, config) for judge in (valid, False)))
        return run_auto(model, given, opening, seconds=seconds, out=out, resume=resume, quiet=quiet, started=started)


def check_arguments(valid: Any, budget: Any, recipe: Any, options: dict[str, Any]) -> tuple[float | None, dict[str, Any]]:
    """Return the seconds of a budget, None without one, and the options that are given.

    Raises:
        OptionError: For arguments that contradict the choice.
    """
    seconds = seconds_of(budget)
    if recipe is None:
        raise OptionError(
            "budget (--budget) is for recipe='auto', and no recipe is given; add recipe='auto' (--recipe auto), or leave budget out"
        )
    if recipe != "auto":
        raise OptionError(f"budget (--budget) is for recipe='auto', and recipe is {recipe!r}; leave one of them out")
    if valid is False:
        raise OptionError("valid=False: recipe 'auto' judges by held-out samples; give some, or leave it out to have 20 % held out")
    given = {name: value for name, value in options.items() if value is not None}
    check_auto(given)
    return seconds, given


def open_with_hold_out(held_out: Callable[[], Tables], everything: Callable[[], Tables]) -> Tables:
    """Open data with a held-out part, or wholly where none can be held out, which is logged."""
    try:
        return held_out()
    except HoldOutError as error:
        line = (
            "recipe 'auto' fits only the probe, because no validation samples can be held out: %s; give a validation set (valid, --valid)"
        )
        log.warning(line, error.fault)
        return everything()


def run_auto(
    model: TaskModel,
    options: dict[str, Any],
    open_tables: Callable[[], Tables],
    *,
    seconds: float | None,
    out: str | Path | None,
    resume: bool,
    quiet: bool,
    started: float,
) -> Run:
    """Fine-tune a model by the best of the candidates; see ``fit_auto``.

    Args:
        model: The model.
        options: The given options.
        open_tables: Opens the data, see ``open_with_hold_out``.
        seconds: The budget, or None.
        out: Folder of the run.
        resume: Go on in it.
        quiet: Show nothing.
        started: When the budget began, by ``time.monotonic``.
    """
    with each_message_once():
        trials, left_out = list_trials(model, options, quiet=quiet)
        folder = claim_folder(out, model.spec.name, "auto", resume=resume)
        try:
            with ending_early(), torch.inference_mode(False), torch.enable_grad():
                tables = open_tables()
                for trial in trials:
                    trial.tables = tables
                return _chosen(model, trials, left_out, folder, seconds=seconds, quiet=quiet, started=started)
        finally:
            with suppress(OSError):  # there are candidates, or none has begun
                (folder / CANDIDATES).rmdir()
            release_folder(folder)


def _chosen(
    model: TaskModel,
    trials: list[Trial],
    left_out: dict[str, str],
    folder: Path,
    *,
    seconds: float | None,
    quiet: bool,
    started: float,
) -> Run:
    default, tables = trials[-1], trials[-1].tables
    assert tables is not None, "the data are open"
    record = _record(default, tables)
    before = _check_same(folder, record)
    job = default.job()
    task = find_task(model.task)
    # A choice keeps the metric that it began with; earlier versions did not record it and took the task's first one.
    unnamed = monitor_of(task, *tables) if before is None else before.get("monitor")
    monitor = resolve_monitor(job.config.monitor or unnamed, task, job.own.metrics)
    record["auto"]["monitor"] = monitor
    progress = Progress(quiet, monitor)
    if (finished := read_finished(folder)) is not None:
        progress.note(f"the run in {str(folder)!r} is finished, with nothing left to try: this is its result")
        _load(model, trials, folder)
        return finished
    write_run(folder, record)
    try:
        with stop_signals() as stop:
            how: dict[str, Any] = {"started": started, "close": partial(_take, model, trials, folder), "progress": progress, "stop": stop}
            search = Search(model, trials, left_out, folder=folder, budget=seconds, **how)
            choice = search.run()
    except InterruptedRunError as error:
        raise going_on(error, folder, "recipe='auto'") from error
    except OwnPartError as error:
        name_whole(error, folder)
        raise
    return _finish(model, trials, folder, record, search=search, choice=choice)


def _finish(model: TaskModel, trials: list[Trial], folder: Path, record: dict[str, Any], *, search: Search, choice: Choice) -> Run:
    """Take over the chosen run, and write the choice beside it."""
    _take(model, trials, folder, search, choice.result)
    written = take_over(folder, choice.result.folder)
    found = search.write(choice)
    write_run(folder, written | {"auto": record["auto"] | found})
    if not trials[0].config.keep_checkpoints:
        clear(folder, [result.folder for result in search.results])
    run = read_finished(folder)
    assert run is not None, "the record of a finished run was written"
    return run


def _take(model: TaskModel, trials: list[Trial], folder: Path, search: Search, result: Result) -> None:
    """Give a model the values of a candidate's run, in place, and draw the picture of all candidates so far."""
    _load(model, trials, folder / result.folder)
    draw_candidates(search.rows(Choice(result, "")), folder / "auto.png", monitor=search.monitor)


def _load(model: TaskModel, trials: list[Trial], folder: Path) -> None:
    """Give a model the values of a finished run, and the inputs and class names of the data, in place."""
    config, tables = trials[-1].config, trials[-1].tables
    assert tables is not None, "the data are open"
    take_values(model, folder, check_tables(model, tables, config)[0], config)


def _record(default: Trial, tables: Tables) -> dict[str, Any]:
    """Return the record of a choice that has begun; its options and data must be the same when it is resumed."""
    config = default.config.to_dict()
    data = data_record(tables)
    plain: dict[str, Any] = json.loads(json.dumps({"auto": {"config": config, "data": data}}))
    return plain


def _check_same(folder: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record of a choice that began in a folder, with the same options and data; None where none did.

    Raises:
        SavedModelError: Naming all differences, or that the folder holds another run.
    """
    path = folder / "run.json"
    if not path.is_file():
        return None
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if "auto" not in before:
            name = before["config"]["recipe"]["name"]
            raise SavedModelError(
                f"the run in {str(folder)!r} has the recipe {name!r}, not 'auto'; name it, or take another folder (--out)"
            )
        ours, theirs = record["auto"], before["auto"]
        faults = option_differences(ours["config"], theirs["config"])
        faults += [data_difference(name, ours["data"][name], theirs["data"][name]) for name in ("train", "valid")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, SavedModelError):
            raise
        raise SavedModelError(f"{str(path)!r} cannot be read ({error}); start anew in another folder (out, --out)") from error
    if faults := [fault for fault in faults if fault]:
        remedy = "Give the same as before, or start anew (out, --out)"
        raise SavedModelError(fault_list(f"the choice in {str(folder)!r} cannot go on:", faults, remedy))
    return dict(theirs)
