"""Saved models that may become one: the runs that were named, and the members of ensembles among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.engine.options.model_selection import resolve_monitor
from zoo.errors import OptionError, SavedModelError, fault_list
from zoo.models.task_model import TaskModel
from zoo.saved.config import Config, read_config, read_members
from zoo.tasks.find import find_task

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


def open_candidates(runs: Sequence[str | Path], *, averaged: bool) -> list[Candidate]:
    """Return the models of runs; of a cross-validation or an ensemble its members.

    Args:
        runs: Folders.
        averaged: Whether their values are to be averaged, so that they must be one network.

    Raises:
        OptionError: If there are fewer than two, or they differ in what must be the same; all differences are named.
        SavedModelError: If a folder holds no saved model.
    """
    folders = [path for run in runs for path in (_members(Path(run)) or [Path(run)])]
    if twice := sorted({str(path) for path in folders if folders.count(path) > 1}):
        raise OptionError(f"{', '.join(map(repr, twice))} is given twice")
    if len(folders) < 2:
        raise OptionError(f"give two runs or more, or one cross-validation; {len(folders)} is given")
    found = [Candidate(path, read_config(path)) for path in folders]
    first = found[0]
    faults = [fault for other in found[1:] for fault in _differences(first, other, averaged=averaged)]
    if faults:
        what = "averaged: the mean of other networks is none" if averaged else "an ensemble"
        raise OptionError(fault_list(f"these models cannot be {what}:", faults[:8]))
    return found


def _members(folder: Path) -> list[Path]:
    return [] if (folder / "config.json").is_file() else read_members(folder)


def _differences(first: Candidate, other: Candidate, *, averaged: bool) -> list[str]:
    ours, theirs = first.config, other.config
    pairs = [(name, getattr(ours, name), getattr(theirs, name)) for name in ("task", "num_classes", "labels")]
    names = _SAME if averaged else ("inputs",)
    pairs += [(name, getattr(ours.zoo, name), getattr(theirs.zoo, name)) for name in names]
    return [f"{str(other.folder)!r}: {name} is {b!r}, and of {str(first.folder)!r} {a!r}" for name, a, b in pairs if a != b]


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
