"""``DomainAdaptation(target, method="auto")``: several methods in runs of their own, and a choice without labels of the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from zoo.engine.loading.start_method import refuse_second_run
from zoo.engine.rundir.run_folder import Run, claim_folder, release_folder
from zoo.engine.runtime.launch_env import launched
from zoo.engine.runtime.signals import ending_early
from zoo.engine.train.fit import check_kinds
from zoo.engine.train.job import Job, resolve_job
from zoo.errors import OptionError, fault_list, refusals
from zoo.models.task_model import TaskModel
from zoo.select.log_once import each_message_once
from zoo.select.recipe_search.halving import seconds_of
from zoo.tasks.find import find_task
from zoo.transfer.domain.choosing.choice_record import finished_choice
from zoo.transfer.domain.choosing.comparison import Comparison


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
    if faults := _faults(job) + refusals(options.refuse, job.model, job.config):
        raise OptionError(fault_list("method 'auto' cannot run like this:", faults))
    folder = claim_folder(out, job.model.spec.name, "adapt", resume=resume)
    try:
        with ending_early(), each_message_once(), torch.inference_mode(False), torch.enable_grad():
            comparison = Comparison(job, options, folder, seconds)
            if (folder / "run.json").is_file() and (finished := finished_choice(folder, comparison.record())) is not None:
                comparison.load()
                return finished
            return comparison.run()
    finally:
        release_folder(folder)


def _faults(job: Job) -> list[str]:
    command = "zoo train NAME SOURCE --objective domain-adaptation --set target=TARGET --set method=coral"
    in_python = "name a method: DomainAdaptation(target, method='coral')"
    faults, remedy = [], f"{in_python} ({command})"
    if not find_task(job.model.task).exclusive:
        faults.append(f"the task is {find_task(job.model.task).words}, and the validators need one class per sample; {remedy}")
    if launched() > 1:
        faults.append(f"the candidates run in one process; leave --num-processes out, or {remedy}")
    if job.own.log_with:
        faults.append(f"log_with: a tracker follows one run, and several are made; {in_python}")
    return faults
