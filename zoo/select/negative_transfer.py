"""Baselines beside a run: whether a simpler method would have been better on the same validation data."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from zoo.engine.distributed.rendezvous import joined
from zoo.engine.inference.all_outputs import run_whole
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.inference.metrics import compute_metrics
from zoo.engine.loading.sources import inputs_in_use
from zoo.engine.optim.optimizer import check_optimizer
from zoo.engine.options.config import Config
from zoo.engine.options.own_parts import own_metrics
from zoo.engine.options.recipe import Phase, Recipe
from zoo.engine.options.recipes import RECIPES
from zoo.engine.options.resolve import resolve
from zoo.engine.rundir.run_folder import RECORD, Run, write_run
from zoo.engine.runtime.launch_env import launched
from zoo.engine.runtime.signals import ending_early
from zoo.engine.train.fit import check_kinds, run_job
from zoo.engine.train.job import Job, Tables, make_job, resolve_job
from zoo.errors import OptionError, ZooError, count, fault_list
from zoo.models.backbone import Backbone
from zoo.models.pairs.zero_shot import ZeroShotHead
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.trust.baselines import baselines
from zoo.util.numbers import score_text

log = logging.getLogger("zoo")
FOLDER = "baselines"  # below that of the run
AUTO = "baselines: recipe 'auto' tries the linear probe beside others itself; leave baselines out, or name a recipe"
CHEAP = 120.0  # seconds that training from scratch may take
# Options of the data, the inputs and the machine, which every baseline shares with the run.
_SHARED = (
    *("image_size", "max_length", "overflow", "window", "seed", "monitor", "class_weights", "label_smoothing"),
    *("device", "precision", "workers", "timeout", "cache_gb", "on_corrupt"),
)
_PROBE = Recipe(name="linear-probe", phases=(Phase(name="probe", frozen="all", solve=True, augment=False),))


@dataclass(frozen=True)
class Baseline:
    """A simpler method on the same data.

    Attributes:
        name: The method.
        metric: What compares: the monitor of the run, or the task's where that is one of the objective alone.
        score: Its value on the validation data, or None.
        lost: Whether the run is worse.
        note: Why there is no score; else its folder, if it has one.
    """

    name: str
    metric: str
    score: float | None
    lost: bool
    note: str = ""


def fit_with_baselines(
    model: TaskModel,
    train: Any,
    valid: Any = None,
    *,
    recipe: str | Recipe | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    objective: Any = None,
    budget: Any = None,
    **options: Any,
) -> Run:
    """Fine-tune a model in place, and simpler methods beside it, and log which is better; arguments as for ``zoo.engine.train.fit.fit``.

    Raises:
        OptionError: As ``fit``; without validation data, or on several processes.
    """
    check_kinds(out, resume=resume, quiet=quiet)
    if recipe == "auto" or budget is not None:
        raise OptionError(AUTO)
    job = resolve_job(model, train, valid, recipe=recipe, options=options, objective=objective, quiet=quiet)
    run = run_with_baselines(job, out, resume=resume, validated=valid is not False)
    (log.warning if any(row["lost"] for row in run.baselines) else log.info)("%s", run.verdict)
    return run


def run_with_baselines(job: Job, out: str | Path | None, *, resume: bool, validated: bool = True) -> Run:
    """Run a job, then its baselines in folders below it, and say in one line whether the run lost to one: ``verdict``.

    These are the most frequent answer (``prior``), of a zero-shot head the model as it began (``zero-shot``, ``start`` of one that was
    trained before), a solved linear probe, with an objective the labels alone without it, and the same network from random values where
    that takes less than two minutes by the time of the run.

    Args:
        job: The job.
        out: Folder of the run.
        resume: Go on where it stopped; baselines that are finished are only read.
        validated: Whether there are validation data.

    Returns:
        The run, with ``baselines``; they also stand in its record.
    """
    faults = [] if validated else ["valid=False: they are compared on validation data; give some, or leave it out"]
    if launched() > 1:
        faults.append("they run in one process; leave --num-processes out")
    if faults:
        raise OptionError(fault_list("baselines cannot run like this:", faults))
    start, opened = copy.deepcopy(job.model), cache(job.open_data)
    job = replace(job, open_data=opened)
    run = _run(job, out, resume=resume)
    rows = list(_rows(job, start, run, opened()))
    verdict = _verdict(run, rows, len(opened()[1] or ()), _monitor(job, run))
    run = replace(run, baselines=[asdict(row) for row in rows], verdict=verdict)
    record = json.loads((run.dir / RECORD).read_text(encoding="utf-8"))
    write_run(run.dir, record | {FOLDER: {"rows": run.baselines, "verdict": verdict}})
    return run


def _run(job: Job, out: str | Path | None, *, resume: bool) -> Run:
    with ending_early(), joined(job.config.device, job.config.timeout) as ranks:
        return run_job(job, ranks, out, resume=resume)


def _rows(job: Job, start: TaskModel, run: Run, tables: Tables) -> Iterator[Baseline]:
    monitor = _monitor(job, run)
    mine, lower = run.metrics.get(monitor), _is_lower(job, monitor)

    def judged(name: str, score: float | None, note: str = "") -> Baseline:
        lost = score is not None and mine is not None and bool(score < mine if lower else score > mine)
        return Baseline(name, monitor, score, lost, note)

    yield judged("prior", _prior(job, tables).get(monitor))
    if isinstance(start.head, ZeroShotHead):
        yield judged("zero-shot" if not start.trained_on else "start", _untrained(job, start, tables).get(monitor))
    for name, make in _trained(job, start, run).items():
        try:
            other = make()
            found = other if isinstance(other, str) else _run(other, run.dir / FOLDER / name, resume=(run.dir / FOLDER / name).exists())
        except (ZooError, OSError) as error:
            found = f"it cannot be trained: {error}"
            log.warning("the baseline %s has no score: %s", name, error)
        if isinstance(found, str):
            yield judged(name, None, found)
        else:
            yield judged(name, found.metrics.get(monitor), f"{FOLDER}/{name}")


def _trained(job: Job, start: TaskModel, run: Run) -> dict[str, Callable[[], Job | str]]:
    """Return the baselines that are trained, by name: a job, or why there is none."""
    skips = ("max_corrupt",) if job.config.on_corrupt == "skip" else ()
    shared = {name: value for name in (*_SHARED, *skips) if (value := getattr(job.config, name)) is not None} | {
        "monitor": _monitor(job, run)
    }

    def again(model: TaskModel, config: Config) -> Job:
        return make_job(model, config, job.open_data, validated=True, own=job.own, quiet=True, advises=False)

    def resolved(recipe: Recipe, **options: Any) -> Config:
        return resolve(recipe, shared | options, task=start.task, check_optimizer=check_optimizer)

    def probe() -> Job | str:
        return again(copy.deepcopy(start), resolved(_PROBE))

    def scratch() -> Job | str:
        seconds = sum(float(line["seconds"]) for line in run.history)
        if not start.pretrained:
            return "the run itself starts from random values"
        if seconds > CHEAP:
            return f"the run took {seconds:.0f} s, and {CHEAP:.0f} s are spent on it at most"
        return again(_random(start, job.config.seed), resolved(RECIPES["full"], epochs=job.config.epochs, batch_size=job.config.batch_size))

    found: dict[str, Callable[[], Job | str]] = {}
    if job.config.recipe.name != _PROBE.name or job.objective is not None:
        found["linear-probe"] = probe
    if job.objective is not None:
        found["labels-alone"] = lambda: replace(again(copy.deepcopy(start), job.config), objective=None)
    return found | {"from-scratch": scratch}


def _monitor(job: Job, run: Run) -> str:
    """Return the metric that compares: the monitor of the run, or the task's where that is one of the objective alone."""
    known = [*find_task(job.model.task).monitors, *job.own.metrics]
    return run.monitor if run.monitor in known else next((name for name in known if name in run.metrics), run.monitor)


def _random(model: TaskModel, seed: int) -> TaskModel:
    """Return a model like another one, with random values."""
    backbone = Backbone(model.spec, plugin=model.plugin, weights=False)
    labels = model.labels
    return backbone.adapt(model.num_classes, task=model.task, head=model.head_name, labels=labels, seed=seed, **model.head_options)


def _prior(job: Job, tables: Tables) -> dict[str, float]:
    table, task = tables[1], find_task(job.model.task)
    if table is None or table.targets is None or task.per_token:
        return {}
    return baselines(task, np.asarray(table.targets), table.classes, job.model.num_classes, {}).get("prior", {})


def _untrained(job: Job, start: TaskModel, tables: Tables) -> dict[str, float]:
    """Return the metrics of a model as it was before the run, on the validation data that can be read."""
    (train, valid), task, model = tables, find_task(job.model.task), copy.deepcopy(start)
    if valid is None or valid.targets is None:
        return {}
    model.inputs = inputs_in_use(model, job.config, train)
    how: dict[str, Any] = {name: getattr(job.config, name) for name in ("device", "precision", "workers")}
    how["on_error"] = "skip" if job.config.on_corrupt == "skip" else "stop"
    found = run_whole(model, valid, model, InferenceOptions(**how))
    read = [row for row in range(len(valid)) if row not in found.errors]
    outputs, truth = found.values[read], np.asarray(valid.select(read).targets)
    return compute_metrics(task, outputs, truth, valid.classes) | own_metrics(job.own.metrics, task, outputs, truth)


def _is_lower(job: Job, monitor: str) -> bool:
    return monitor in {*find_task(job.model.task).lower_is_better, *job.own.lower}


def _verdict(run: Run, rows: list[Baseline], samples: int, monitor: str) -> str:
    """Return in one line whether the run is better than its baselines, by a metric that they have too."""
    value = run.metrics.get(monitor)
    if value is None:
        return f"the run has no {monitor} to compare baselines by"
    if all(row.score is None for row in rows):
        return f"no baseline could be compared: none has a {monitor}"
    lost = any(row.lost for row in rows)
    scores = ", ".join(f"{row.name} {score_text(monitor, row.score)}" for row in rows if row.score is not None and (row.lost or not lost))
    on = f"on {count(samples, 'validation sample')}"
    on += "" if monitor == run.monitor else f" ({run.monitor}, by which the epoch was chosen, is of the objective alone)"
    if lost:
        return f"the run lost to a simpler method: {monitor} {score_text(monitor, value)} {on}, and {scores}; take that, or find out why"
    return f"no baseline is better: {monitor} {score_text(monitor, value)} {on}, and {scores}"
