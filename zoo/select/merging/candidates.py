"""Saved models that may become one: the runs that were named, and the members of ensembles among them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from zoo.data.sources.folders import check_exists
from zoo.engine.inference.evaluate import evaluate
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.options.model_selection import resolve_monitor
from zoo.engine.runtime.device import choose_device, choose_precision
from zoo.errors import OptionError, SavedModelError, ZooError, check_options, check_together, fault_list, first_faults
from zoo.models.task_model import TaskModel
from zoo.saved.config import Config, read_config, read_members
from zoo.saved.save import check_free
from zoo.tasks.find import find_task

_OF_BACKBONE = ("base", "options", "inputs", "features", "layer_groups")  # what follows from the backbone
_SAME = ("backbone", "base", "options", "inputs", "features", "layer_groups", "head", "head_options")


@dataclass(frozen=True)
class Candidate:
    """One saved model.

    Attributes:
        folder: Its folder.
        config: Its config.json.
    """

    folder: Path
    config: Config


@dataclass(frozen=True)
class Merged:
    """The result of ``soup`` and ``ensemble``.

    Attributes:
        model: The model; an ``Ensemble``, or a single model where nothing beside it is better.
        kept: Folders of the models that it is made of, in the order in which they were added.
        metric: The metric that chose.
        score: Its value on the held-out data.
        scores: Its value of each candidate alone, by folder.
        steps: What was tried: folder, value with it, and whether it was added.
        dir: Folder of the saved result.
    """

    model: TaskModel
    kept: list[str]
    metric: str
    score: float
    scores: dict[str, float]
    steps: list[dict[str, Any]] = field(default_factory=list)
    dir: Path = Path()

    def record(self, kind: str) -> dict[str, Any]:
        """Return the content of the JSON file beside the result."""
        names = ("kept", "metric", "score", "scores", "steps")
        return {"kind": kind} | {name: getattr(self, name) for name in names}


def checked_candidates(
    runs: str | Path | Sequence[str | Path], valid: Any, *, out: Any, metric: str | None, options: Mapping[str, Any], averaged: bool
) -> tuple[list[Candidate], str, bool]:
    """Check all arguments of ``soup`` and ``ensemble`` before a model is loaded.

    Args:
        runs: Folders.
        valid: The labelled data that choose.
        out: The folder of the result.
        metric: The metric that chooses; None for the first of the task.
        options: As for ``evaluate``.
        averaged: Whether the models are to be averaged.

    Returns:
        The models, the metric that chooses, and whether its lowest value is the best.

    Raises:
        ZooError: The only mistake, or an ``OptionError`` with all of them.
    """
    folders = [runs] if isinstance(runs, str | Path) else list(runs)
    found, (chosen, lower), *_ = check_together(
        f"these runs cannot become {'one by their mean' if averaged else 'an ensemble'}:",
        lambda: open_candidates(folders, averaged=averaged),
        lambda: metric_of(_task_of(folders), metric),
        lambda: _check_valid(valid),
        lambda: _check_out(out),
        lambda: _check_pass(options, "soup()" if averaged else "ensemble()"),
    )
    return found, chosen, lower


def _check_valid(valid: Any) -> None:
    if valid is None:
        raise OptionError("valid (--valid) is missing; give labelled data that none of the runs was trained on, as they choose")
    if isinstance(valid, str | Path):
        check_exists(Path(valid))


def _check_out(out: Any) -> None:
    if out is None:
        raise OptionError("out (--out) is missing; give the folder of the result")
    check_free(Path(out), overwrite=None)


def _check_pass(options: Mapping[str, Any], owner: str) -> None:
    """Check the options of the passes over the data.

    Raises:
        OptionError: Naming all that are wrong.
    """
    how = {name: value for name, value in options.items() if name in InferenceOptions.__dataclass_fields__}
    device = options.get("device", "auto")
    check_together(
        "the data cannot be predicted with these:",
        lambda: _refuse_metrics(options),
        lambda: check_options(options, set(inspect.signature(evaluate).parameters) - {"model", "data"}, owner),
        lambda: InferenceOptions(**how),
        lambda: choose_precision(options.get("precision", "auto"), choose_device("cpu")),
        lambda: choose_device(device),
    )


def _refuse_metrics(options: Mapping[str, Any]) -> None:
    if "metrics" in options:
        raise OptionError("metrics: what is kept is chosen by one metric of the task; name it with metric=…")


def _task_of(folders: Sequence[str | Path]) -> str:
    """Return the task of the first folder that holds a model, and the default task if none does, for which ``open_candidates`` raises."""
    for folder in folders:
        with suppress(ZooError):
            return read_config(Path(folder)).task
    return "single-label"


def open_candidates(runs: Sequence[str | Path], *, averaged: bool) -> list[Candidate]:
    """Return the models of runs; of a cross-validation or an ensemble its members.

    Args:
        runs: Folders.
        averaged: Whether their values are to be averaged, so that they must be one network.

    Raises:
        OptionError: If there are fewer than two, or they differ in what must be the same; all differences are named, and all folders
            that hold no saved model.
        SavedModelError: If one folder alone holds no saved model, and nothing else is wrong.
    """
    folders = [path for run in runs for path in (_members(Path(run)) or [Path(run)])]
    found = list[Candidate]()

    def check_number() -> None:
        if twice := sorted({str(path) for path in folders if folders.count(path) > 1}):
            raise OptionError(f"{', '.join(map(repr, twice))} is given twice")
        if len(folders) < 2:
            raise OptionError(f"give two runs or more, or one cross-validation; {len(folders)} is given")

    def check_same() -> None:
        faults = [fault for other in found[1:] for fault in _differences(found[0], other, averaged=averaged)]
        if faults:
            what = "averaged: the mean of other networks is none" if averaged else "an ensemble"
            raise OptionError(fault_list(f"these models cannot be {what}:", first_faults(faults, 8)))

    def open_folder(path: Path) -> None:
        found.append(Candidate(path, read_config(path)))

    opening = [partial(open_folder, path) for path in dict.fromkeys(folders)]
    check_together("these models cannot become one:", check_number, *opening, check_same)
    return found


def _members(folder: Path) -> list[Path]:
    return [] if (folder / "config.json").is_file() else read_members(folder)


def _differences(first: Candidate, other: Candidate, *, averaged: bool) -> list[str]:
    """Return how a model differs from the first in what must be the same; of other architectures that alone, as the rest follows."""
    ours, theirs = first.config, other.config
    names = _SAME if averaged else ("inputs",)
    pairs: dict[str, tuple[Any, Any]] = {"task": (find_task(ours.task).words, find_task(theirs.task).words)}
    pairs |= {name: (getattr(ours, name), getattr(theirs, name)) for name in ("num_classes", "labels")}
    pairs |= {name: (getattr(ours.zoo, name), getattr(theirs.zoo, name)) for name in names}
    differ = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if "backbone" in differ:
        differ = {name: pair for name, pair in differ.items() if name not in _OF_BACKBONE}
    if "head" in differ:
        differ.pop("head_options", None)
    return [f"{str(other.folder)!r}: {_difference(name, *pair)} of {str(first.folder)!r}" for name, pair in differ.items()]


def _difference(name: str, ours: Any, theirs: Any) -> str:
    """Return a difference in words; of mappings the entries that differ."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        values = [", ".join(f"{key}={side.get(key)!r}" for key in keys) for side in (theirs, ours)]
        return f"{name} has {values[0]}, not {values[1]} as that"
    return f"{name} is {theirs!r}, not {ours!r} as that"


def metric_of(task: str, metric: str | None) -> tuple[str, bool]:
    """Return the metric that chooses, and whether its lowest value is the best."""
    found = resolve_monitor(metric, find_task(task), name="metric")
    return found, found in find_task(task).lower_is_better


def score_of(metrics: Mapping[str, float], metric: str, folder: Path | str) -> float:
    """Return the value of a metric.

    Raises:
        SavedModelError: If the data leave it undefined.
    """
    if metric not in metrics:
        raise SavedModelError(f"{str(folder)!r}: {metric!r} has no value on these data; take other data, or another metric (--metric)")
    return float(metrics[metric])


def not_worse(score: float, than: float, *, lower: bool) -> bool:
    """Return whether a score is as good as another one."""
    return score <= than if lower else score >= than
