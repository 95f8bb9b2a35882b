"""Finished runs and cross-validations, as they are compared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.engine.options.config import DECLARED
from zoo.engine.rundir.run_folder import FINISHED, metrics_of
from zoo.errors import SavedModelError
from zoo.saved.missing_folder import missing_folder
from zoo.select.crossval.resampled import Summary
from zoo.select.crossval.result import RECORD, CrossValidation, read_record, read_result
from zoo.tasks.find import find_task

ABSENT = "-"


@dataclass(frozen=True)
class Entry:
    """One run, or one cross-validation.

    Attributes:
        name: Its folder, as it was given.
        folder: The same.
        task: Name of its task.
        settings: What it was made with, by name.
        data: Digest of its training data; of a cross-validation that of all samples.
        scores: Mean of each metric with its interval; of a run the metrics of the kept epoch, without one.
        monitor: Its own metric.
        folds: The cross-validation, or None for a run.
        division: Digest of the division into folds; empty for a run.
    """

    name: str
    folder: Path
    task: str
    settings: dict[str, Any]
    data: str
    scores: dict[str, Summary]
    monitor: str
    folds: CrossValidation | None = None
    division: str = ""
    valid: str = field(default="", repr=False)


def read_entry(name: str | Path) -> Entry:
    """Return the run or the cross-validation in a folder.

    Raises:
        SavedModelError: If there is none, or it is not finished or damaged.
    """
    folder = Path(name)
    if not folder.is_dir():
        raise missing_folder(folder, "runs or cross-validations")
    if (folder / RECORD).is_file():
        with _reading(folder / RECORD):
            return _cross_validation(str(name), folder)
    path = folder / "run.json"
    if not path.is_file():
        raise SavedModelError(f"{str(folder)!r} holds neither a run (run.json) nor a cross-validation (cv.json)")
    with _reading(path):
        return _run(str(name), folder, json.loads(path.read_text(encoding="utf-8")))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise ``SavedModelError`` where a record is damaged, or of a form that another version wrote."""
    try:
        yield
    except SavedModelError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise SavedModelError(f"{str(path)!r} cannot be read ({error!r}); it may be of another version") from error


def _cross_validation(name: str, folder: Path) -> Entry:
    record, found = read_record(folder), read_result(folder)
    if found is None or record is None:
        raise SavedModelError(f"the cross-validation in {str(folder)!r} is not finished; go on with it: resume=True (--resume)")
    settings = _settings(record) | {"data": record["data"]["source"]} | {f"cv.{key}": value for key, value in record["cv"].items()}
    del settings["cv.sha256"]
    task, division = _task(record), str(record["cv"]["sha256"])
    data = record["data"]["sha256"] + record["data"].get("content", "")
    return Entry(name, folder, task, settings, data, found.scores, found.metric, found, division)


def _run(name: str, folder: Path, record: Mapping[str, Any]) -> Entry:
    if FINISHED not in record:
        raise SavedModelError(f"the run in {str(folder)!r} is not finished; go on with it: resume=True (--resume)")
    done, data = record[FINISHED], record["data"]
    metrics = metrics_of(done["history"], done["kept"])
    scores = {key: Summary(float(value), math.nan, math.nan, math.nan, 1) for key, value in metrics.items()}
    settings = _settings(record) | {"data": data["train"]["source"]}
    valid = data["valid"]["sha256"] if data["valid"] else ""
    return Entry(name, folder, _task(record), settings, data["train"]["sha256"], scores, str(done["monitor"]), valid=valid)


def _task(record: Mapping[str, Any]) -> str:
    return find_task(str(record["model"]["task"])).name


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the backbone, the head, the recipe and the options that change a result."""
    config, model = record["config"], record["model"]
    options = {name: value for name, value in config.items() if name in DECLARED and not DECLARED[name].free}
    if config.get("judge_augment"):
        options["augment"] = "auto"
    named = {"backbone": model["backbone"], "head": model["head"], "task": model["task"], "recipe": config["recipe"]["name"]}
    return named | options


def differences(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Return the settings in which entries differ, with the value of each."""
    names = dict.fromkeys(name for entry in entries for name in entry.settings)
    rows = {name: [_text(entry.settings.get(name)) for entry in entries] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_text(part)}" for key, part in value.items()) or ABSENT
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or ABSENT
    return ABSENT if value is None else f"{value:g}" if isinstance(value, float) else str(value)
