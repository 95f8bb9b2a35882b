"""Fine-tuning: one loop for every recipe, task and device."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from zoo.data.splits.duplicates import samples_digest
from zoo.data.table import Table
from zoo.declare import Origin
from zoo.engine.distributed.rank_consistency import check_same_checkpoint, check_same_modules, check_same_setup
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.distributed.rendezvous import joined
from zoo.engine.distributed.sharding import check_shardable, trained_model
from zoo.engine.loading.class_counts import monitor_of
from zoo.engine.loading.sources import check_tables, inputs_in_use, table_digest
from zoo.engine.loading.start_method import refuse_second_run
from zoo.engine.objective.make_objective import make_objective
from zoo.engine.objective.supervised import Supervised
from zoo.engine.options.begun import as_begun, began_validated
from zoo.engine.options.recipe import Recipe
from zoo.engine.rundir.checkpoint import Checkpoint, clean_stages, remove_checkpoints
from zoo.engine.rundir.curves import draw_curves
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.rundir.run_folder import (
    FINISHED,
    Run,
    claim_folder,
    metrics_of,
    read_finished,
    release_folder,
    write_history,
    write_run,
)
from zoo.engine.runtime.device import make_accelerator
from zoo.engine.runtime.input_sizes import explained_size
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.signals import StopFlag, ending_early, stop_signals, too_late
from zoo.engine.train.finalize import kept_before_tuning
from zoo.engine.train.job import Job, MakeObjective, Tables, resolve_job
from zoo.engine.train.model_setup import active, further_modules, prepared, switch_off
from zoo.engine.train.record import checkpoint_to_resume, effective, record_of, recorded_options
from zoo.engine.train.train_state import STOP
from zoo.engine.train.trainer import Training
from zoo.errors import OptionError, fault_list
from zoo.models.task_model import TaskModel
from zoo.saved.load import load_into
from zoo.tasks.find import find_task
from zoo.util.atomic_write import remove_parts

log = logging.getLogger("zoo")


def fit(
    model: TaskModel,
    train: Any,
    valid: Any = None,
    *,
    recipe: str | Recipe | None = None,
    epochs: int | None = None,
    batch_size: int | str | None = None,
    lr: float | str | None = None,
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    objective: MakeObjective | None = None,
    **recipe_options: Any,
) -> Run:
    """Fine-tune a model in place and save it with its record.

    The seed decides everything: the order of the samples, their augmentation, dropout. On the CPU equal seeds therefore
    give equal bits, also after an interruption; on a GPU some kernels add in no fixed order, so runs agree up to
    rounding. The caller's random state is restored, and the model returns to its device and mode with the values of
    its best epoch.

    A checkpoint is written at the end of every phase, after a step or an epoch if the last one is more than 30 seconds
    old, and on a signal.

    Args:
        model: The model; its ``labels`` are taken from the data if it has none.
        train: Any source with labels, see ``zoo.data.open.open_data``.
        valid: Another source; None takes the validation split of ``train`` or holds 20 % out (nothing of very few samples, see
            ``zoo.engine.options.model_selection.whole_up_to``); False trains on everything and keeps the last epoch.
        recipe: ``layer-decay``, ``linear-probe``, ``lp-ft``, ``full``, ``top``, ``gradual``, ``lora``, ``bitfit``, another of
            docs/recipes.md, or a ``Recipe``; None takes ``layer-decay``, for words at another rate; ``auto`` is for ``TaskModel.fit``, see
            ``zoo.select.recipe_search.auto``.
        epochs: Epochs of all phases together; the recipe's if None, as are the next two.
        batch_size: Samples of a batch, over all ranks; ``auto`` finds the largest micro-batch that fits into memory.
        lr: Learning rate of the head; ``auto`` finds one for each phase by a range test.
        image_size: Pixels; the declared size if None.
        seed: At least 0.
        out: Folder of the run; None takes the next free one below ``runs/``.
        resume: Continue exactly where the run in ``out`` stopped; one that is finished gives its result again.
        quiet: Show nothing.
        objective: Makes the objective from the ``Supervised`` of the model and the data; None minimises that itself.
        **recipe_options: See ``zoo.engine.options.config.Config``.

    Returns:
        The run: history, metrics of the kept epoch, folder.

    Raises:
        OptionError: For unknown options, values out of range and options that do not apply to the model's task.
        DataError: If the data do not fit the model.
        OutputExistsError: If ``out`` is not empty, unless it is a run and ``resume`` is set.
        OutputPermissionError: If ``out`` cannot be written.
        TrainingError: If a loss or gradient is not finite.
        InterruptedRunError: After Ctrl-C or SIGTERM, once a checkpoint is written.
    """
    refuse_second_run()
    check_kinds(out, resume=resume, quiet=quiet)
    named = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "image_size": image_size, "seed": seed}
    options = named | recipe_options
    again = resume and began_validated(out)
    job = resolve_job(model, train, valid, recipe=recipe, options=options, objective=objective, quiet=quiet, divided=again)
    with ending_early(), joined(job.config.device, job.config.timeout) as ranks:
        if resume and out is not None and ranks.main and not any(Path(out).glob("*")):
            log.info("there is no run in %r to go on with: it starts anew", str(out))
        return run_job(job, ranks, out, resume=resume)


def check_kinds(out: Any, **switches: Any) -> None:
    """Check the types of arguments that are not options.

    Raises:
        OptionError: Naming all that are wrong.
    """
    faults = [f"{name} is {value!r}; it must be True or False" for name, value in switches.items() if not isinstance(value, bool)]
    if out is not None and not isinstance(out, str | os.PathLike):
        faults.append(f"out is {out!r}; it must be the name of a folder, or None")
    if faults:
        raise OptionError(fault_list("fit() got arguments of the wrong type:", faults))


def run_job(job: Job, ranks: Ranks, out: str | Path | None, *, resume: bool, deadline: float = math.inf) -> Run:
    """Fine-tune in a folder that the first rank claims; an error on one rank is raised on all.

    Args:
        job: The job.
        ranks: The joined processes.
        out: Folder of the run; None takes the next free one below ``runs/``.
        resume: Continue exactly where the run in ``out`` stopped.
        deadline: When the run is stopped as by a signal, by ``time.monotonic``.

    Returns:
        As ``fit``. Raises the same errors, except those of its arguments.
    """
    model, config = job.model, job.config
    check_shardable(model, config, ranks, supervised=job.objective is None)
    with ranks.together():
        folder = claim_folder(out, model.spec.name, config.recipe.name, resume=resume) if ranks.main else Path()
    folder = Path(ranks.gather(str(folder))[0])
    if resume and (begun := recorded_options(folder)):
        job = replace(job, config=as_begun(config, begun, model.task), begun=True)
    try:
        with torch.inference_mode(False), torch.enable_grad():  # a caller may have gradients off
            return _fit(job, folder, ranks, deadline)
    finally:
        if ranks.main:
            release_folder(folder)


def _fit(job: Job, folder: Path, ranks: Ranks, deadline: float) -> Run:
    model, config = job.model, job.config
    accelerator = make_accelerator(config.device, config.precision)
    with ranks.together():
        tables = check_tables(model, job.open_data(), config)
        job = job.sized(tables)
        config = job.config
        if config.monitor is None and not job.begun:
            config = config.model_copy(update={"monitor": monitor_of(find_task(model.task), *tables)})
        job = replace(job, config=config)
        record = record_of(job, tables, accelerator)
        model.inputs, model.labels = inputs_in_use(model, config, tables[0]), model.labels or tables[0].classes or None
    check_same_setup({**record, "config": effective(record)}, model, ranks)
    with ranks.together():
        if ranks.main:
            clean_stages(folder / "checkpoint")  # before other ranks read it
            remove_parts(folder)
    with ranks.together():
        saved = checkpoint_to_resume(folder, record)
        if saved is None and (finished := read_finished(folder)) is not None:
            load_into(model, folder)
            if ranks.main:
                write_history(folder, finished.history)
            told = Progress(job.quiet or not ranks.main, finished.monitor)
            told.note(f"the run in {str(folder)!r} is finished, with nothing left to train: this is its result")
            return finished
    check_same_checkpoint(folder, saved.plain["run"]["steps"] if saved else None, ranks)
    with stop_signals() as stop, explained_size(model):
        stop.deadline = deadline
        run = _train(job, tables, accelerator, folder, record, saved, stop=stop, ranks=ranks)
        if signum := max(ranks.gather(stop.sent)):  # the signal came after the last poll
            stop.signum = signum
            raise ranks.known(too_late(stop, folder))
    return run


def _train(
    job: Job,
    tables: Tables,
    accelerator: Any,
    folder: Path,
    record: dict[str, Any],
    saved: Checkpoint | None,
    *,
    stop: StopFlag,
    ranks: Ranks,
) -> Run:
    """Train on the accelerator's device, then move the model back."""
    model, config = job.model, job.config
    if model.calibration is not None:
        log.info("the calibration of the model is dropped, as its values change; calibrate it again afterwards")
        model.calibration = None
    with prepared(model, config, accelerator) as (layout, penalties):
        half = accelerator.mixed_precision != "no"
        with trained_model(model, config, ranks, accelerator.device, half=half) as trained:
            supervised = Supervised(trained, *tables, config, accelerator.device, penalties, job.own)
            objective = make_objective(job.objective, supervised, config)
            check_same_modules(objective.module, objective.frozen, ranks)
            progress = Progress(job.quiet or not ranks.main, objective.monitor)
            context = RunContext(config, accelerator, ranks, folder, layout, progress, stop, job.own, advises=job.advises)
            with further_modules(objective, context.device), active(objective, supervised):
                training = Training(objective, context)
                if ranks.main:
                    write_run(folder, record)
                    (folder / STOP).unlink(missing_ok=True)
                training.run(saved)
            chosen = ranks.gather(supervised.thresholds)[0]
            model.thresholds = chosen and tuple(chosen)
            if find_task(model.task).thresholded and not chosen:
                log.info("labels are predicted above 0.5: no validation data or solved head could choose thresholds")
        learned = not kept_before_tuning(training.state.history, training.best)
        switch_off(model, config, folder if ranks.main else None, learned=learned)
        model.origins = (*model.origins, _step(training, tables[0]))
        model.trained_on = tuple(dict.fromkeys((*model.trained_on, *filter(None, _digests(*tables)))))
    return _finish(model, training, folder, record)


def _digests(train: Table, valid: Table | None) -> Iterator[str]:
    """Yield what makes the data known again: the training data, and the source as a whole where validation data were taken from it."""
    yield table_digest(train) or samples_digest(train)
    if valid is not None and valid.source == train.source:
        yield samples_digest(train, valid)


def _step(training: Training, table: Table) -> Origin:
    """Return the run as a step in which the values of its model came about."""
    recipe, objective = training.context.config.recipe.name, training.objective.name
    name = recipe if objective in ("supervised", recipe) else f"{recipe} with the objective {objective}"
    source = table.source.strip("'").rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return Origin(step="fit", name=name, source=source, samples=len(table), sha256=table_digest(table))


def _finish(model: TaskModel, training: Training, folder: Path, described: dict[str, Any]) -> Run:
    """Save the model, what its objective saves and the curves, mark the run as finished, and remove checkpoints that are not to be kept."""
    history, best, ranks = training.state.history, training.best, training.context.ranks
    kept = best.epoch or history[-1]["epoch"]
    with ranks.together():
        if ranks.main:
            write_history(folder, history)
            model.save(folder, overwrite=True)
            training.objective.save_beside()
            draw_curves(history, folder / "curves.png", monitor=best.monitor, kept=best.epoch)
            write_run(folder, described | {FINISHED: {"kept": kept, "monitor": best.monitor, "history": history}})
            if not training.context.config.keep_checkpoints:
                remove_checkpoints(folder / "checkpoint")
    return Run(history, metrics_of(history, kept), folder, kept, best.monitor)
