"""Files of ``recipe="auto"``: the candidates' runs in ``candidates/NAME``, and ``auto.json`` with the choice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.engine.rundir.lock import NAME as LOCK
from zoo.errors import SavedModelError
from zoo.saved.save import writing
from zoo.select.recipe_search.halving import Result, from_record, to_record
from zoo.util.atomic_write import write_json

CANDIDATES, CHOICE, RESULT = "candidates", "auto.json", "result.json"
_RECORD = (LOCK, RESULT, "run.json", "metrics.jsonl", "curves.png")  # what stays of a candidate that was not chosen
_OWN = (LOCK, RESULT, "run.json", "checkpoint")  # what the chosen candidate keeps for itself


def read_spent(folder: Path) -> float:
    """Return the seconds that earlier calls spent in a folder; 0 for a new one."""
    path = folder / CHOICE
    return float(_read(path, lambda record: record["seconds"])) if path.is_file() else 0.0


def read_budget(folder: Path) -> float | None:
    """Return the budget that the choice in a folder began with, in seconds; None for a new one, and before it is known."""
    path = folder / CHOICE
    return _read(path, lambda record: record["budget"] and float(record["budget"])) if path.is_file() else None


def read_results(folder: Path) -> list[Result]:
    """Return the results of finished candidates, in the order in which they were reached.

    Raises:
        SavedModelError: If one of them is damaged.
    """
    files = list((folder / CANDIDATES).glob(f"*/{RESULT}"))
    found = [_read(path, lambda record: (int(record["number"]), from_record(record["result"]))) for path in files]
    return [result for _, result in sorted(found, key=lambda pair: pair[0])]


def _read(path: Path, entry: Callable[[Any], Any]) -> Any:
    try:
        return entry(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SavedModelError(f"{str(path)!r} cannot be read ({error}); start anew in another folder (out, --out)") from error


def write_result(folder: Path, number: int, result: Result) -> None:
    """Write the result of a finished candidate, the ``number``-th of all, into its folder."""
    write_json(folder / result.folder / RESULT, {"number": number, "result": to_record(result)})


def write_choice(folder: Path, choice: Mapping[str, Any]) -> None:
    """Write ``auto.json``."""
    write_json(folder / CHOICE, dict(choice))


def clear(folder: Path, runs: Iterable[str]) -> None:
    """Remove the models of runs that are not needed any more, given by their folders relative to that of the choice; records stay."""
    for name in runs:
        run = folder / name
        for entry in run.iterdir() if run.is_dir() else ():
            if entry.name not in _RECORD:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def take_over(folder: Path, chosen: str) -> dict[str, Any]:
    """Copy the chosen run into the folder of the choice and return its record; ``run.json`` is for the caller to write.

    Args:
        folder: Folder of the choice.
        chosen: Folder of the run, relative to it.

    Raises:
        SavedModelError: If its record is damaged, or the folder cannot be written.
    """
    run = folder / chosen
    with writing(folder):
        for entry in run.iterdir():
            if entry.is_dir() and entry.name not in _OWN:
                shutil.copytree(entry, folder / entry.name, dirs_exist_ok=True)
            elif entry.name not in _OWN:
                shutil.copy2(entry, folder / entry.name)
    record: dict[str, Any] = _read(run / "run.json", dict)
    return record
