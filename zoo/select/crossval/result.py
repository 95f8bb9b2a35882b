"""The result of a cross-validation, and its record ``cv.json``. No torch here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.engine.options.begun import option_differences
from zoo.errors import SavedModelError, count, fault_list
from zoo.select.crossval.resampled import LEAST, Summary, summarize
from zoo.trust.metric_table import ends_of
from zoo.util.numbers import score_text, without_nan

RECORD, PREDICTIONS, PICTURE = "cv.json", "predictions.csv", "cv.png"


@dataclass(frozen=True)
class FoldResult:
    """What one fold reached.

    Attributes:
        fold: Its number, from 0; its run is in the folder ``fold-N``.
        repeat: How often its samples were held out before.
        train: Number of training samples.
        held_out: Number of held-out samples.
        metrics: Metrics of the held-out samples; those that they leave undefined are missing.
        seconds: Time of the run and of the predictions.
    """

    fold: int
    repeat: int
    train: int
    held_out: int
    metrics: dict[str, float]
    seconds: float

    @property
    def folder(self) -> str:
        """Name of the folder of its run."""
        return f"fold-{self.fold}"


@dataclass(frozen=True, repr=False)
class CrossValidation:
    """The result of ``cross_validate``.

    Attributes:
        folds: One result per fold, those of all repeats.
        metric: The metric that is compared and drawn.
        metrics: Metrics of all out-of-fold predictions together.
        dir: The folder: ``cv.json``, ``predictions.csv``, ``cv.png``, the runs ``fold-N``; ``zoo.load`` opens their ensemble.
    """

    folds: tuple[FoldResult, ...]
    metric: str
    metrics: dict[str, float]
    dir: Path

    @property
    def ratio(self) -> float:
        """Held-out samples per training sample, over all folds."""
        return sum(fold.held_out for fold in self.folds) / sum(fold.train for fold in self.folds)

    @property
    def scores(self) -> dict[str, Summary]:
        """The mean of each metric over the folds, with its interval."""
        names = dict.fromkeys(name for fold in self.folds for name in fold.metrics)
        return {name: summarize(self.values(name), self.ratio, ends=ends_of(name)) for name in names}

    @property
    def without_interval(self) -> str:
        """Why the means have no interval, in one sentence; empty where they have one."""
        if len(self.folds) >= LEAST:
            return ""
        return f"the means of {count(len(self.folds), 'fold')} have no interval, as it would say nothing; give 3 or more folds, or repeats"

    @property
    def without_width(self) -> str:
        """Which means have an interval without width, in one sentence; empty where none has."""
        alike = [name for name, one in self.scores.items() if one.folds >= LEAST and one.low == one.high and name != "majority"]
        if not alike:
            return ""
        return f"no fold differs from another in {', '.join(alike)}: an interval without width does not make them certain"

    def values(self, metric: str) -> list[float]:
        """Return one metric of each fold, NaN where the fold leaves it undefined."""
        return [fold.metrics.get(metric, math.nan) for fold in self.folds]

    def __repr__(self) -> str:
        found = self.scores.get(self.metric)
        ends = () if found is None or math.isnan(found.low) else (found.low, found.high)
        interval = f" [{', '.join(score_text(self.metric, end) for end in ends)}]" if ends else ""
        value = f" {self.metric} {score_text(self.metric, found.mean)}{interval}," if found else ""
        return f"<CrossValidation {self.dir.name}:{value} {len(self.folds)} folds, in {str(self.dir)!r}>"


def content_of(folds: Sequence[FoldResult], *, metric: str, metrics: Mapping[str, float], finished: bool) -> dict[str, Any]:
    """Return the entry of ``cv.json`` that grows with each fold."""
    found = CrossValidation(tuple(folds), metric, dict(metrics), Path())
    rows = [{**vars(fold), "folder": fold.folder} for fold in folds]
    scores = {name: without_nan(one._asdict()) for name, one in found.scores.items()} if folds else {}
    return {"folds": rows, "metric": metric, "scores": scores, "out_of_fold": dict(metrics), "finished": finished}


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of a cross-validation; None if the folder has none.

    Raises:
        SavedModelError: If it is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["cv"], record["config"], record["model"], record["data"], record["result"]["folds"]
        return dict(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SavedModelError(f"{str(path)!r} cannot be read ({error!r}); start anew in another folder (out, --out)") from error


def read_result(folder: Path) -> CrossValidation | None:
    """Return the result of a cross-validation that is finished; None if there is none.

    Raises:
        SavedModelError: If its record is damaged.
    """
    record = read_record(folder)
    if record is None or not record["result"].get("finished"):
        return None
    try:
        content = record["result"]
        return CrossValidation(tuple(folds_in(record)), str(content["metric"]), dict(content["out_of_fold"]), folder)
    except (KeyError, TypeError, ValueError) as error:
        raise SavedModelError(f"{str(folder / RECORD)!r} cannot be read ({error!r}); start anew in another folder (out, --out)") from error


def folds_in(record: Mapping[str, Any]) -> list[FoldResult]:
    """Return the results of the folds in a record."""
    return [FoldResult(**{key: value for key, value in row.items() if key != "folder"}) for row in record["result"]["folds"]]


def check_same(folder: Path, ours: Mapping[str, Any]) -> None:
    """Check that a cross-validation in a folder began with the same options, data and folds.

    Raises:
        SavedModelError: Naming all differences.
    """
    theirs = read_record(folder)
    if theirs is None:
        return
    faults = option_differences(ours["config"], theirs["config"]) + option_differences(ours["model"], theirs["model"])
    division = {key: value for key, value in ours["cv"].items() if key != "sha256"}
    faults += option_differences(division, {key: theirs["cv"].get(key) for key in division})
    changed = [key for key in ("samples", "classes", "sha256", "content") if ours["data"][key] != theirs["data"].get(key)]
    named = [key for key in changed if key in ("samples", "classes")]  # beside these, digests say nothing more
    faults += [f"data: {key} was {theirs['data'].get(key)} and is {ours['data'][key]}" for key in named or changed]
    if not faults and ours["cv"]["sha256"] != theirs["cv"].get("sha256"):
        faults.append("the folds hold out other samples")
    if faults:
        remedy = "Give the same as before, or start anew (out, --out)"
        raise SavedModelError(fault_list(f"the cross-validation in {str(folder)!r} cannot go on:", faults, remedy))
