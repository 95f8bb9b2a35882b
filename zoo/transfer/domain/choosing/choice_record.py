"""The record of a choice of ``method="auto"``, by which it is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo.engine.options.begun import option_differences
from zoo.engine.rundir.run_folder import Run, read_finished
from zoo.engine.train.record import data_difference
from zoo.errors import SavedModelError, fault_list


def finished_choice(folder: Path, record: dict[str, Any]) -> Run | None:
    """Return the result of a choice that began in a folder with the same options and data; None where it is not finished.

    Args:
        folder: The folder.
        record: What must be the same: ``options`` of the method, ``config`` of the candidates, ``data`` by their names.

    Raises:
        SavedModelError: If the folder holds another run, or a choice with others.
    """
    path = folder / "run.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8")).get("adaptation")
    except (OSError, ValueError, AttributeError) as error:
        raise SavedModelError(f"{str(path)!r} cannot be read ({error}); start anew in another folder (out, --out)") from error
    if before is None:
        raise SavedModelError(
            f"the run in {str(folder)!r} is not one of method 'auto'; name its method, or take another folder (out, --out)"
        )
    try:
        differing = _differences(before, record)
    except (KeyError, TypeError) as error:
        raise SavedModelError(f"{str(path)!r} lacks {error} of a choice; start anew in another folder (out, --out)") from error
    if differing:
        remedy = "Give the same as before, or start anew (out, --out)"
        raise SavedModelError(fault_list(f"the choice in {str(folder)!r} cannot go on:", differing, remedy))
    return read_finished(folder)


def _differences(before: dict[str, Any], record: dict[str, Any]) -> list[str]:
    faults = [
        f"{name} was {before['options'].get(name)!r} and is {value!r}"
        for name, value in record["options"].items()
        if before["options"].get(name) != value
    ]
    faults += option_differences(record["config"], before["config"])
    faults += filter(None, [data_difference(name, data, before["data"][name]) for name, data in record["data"].items()])
    return faults
