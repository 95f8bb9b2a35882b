"""The record of a choice of ``method="auto"``, by which it is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo.engine.rundir.run_folder import Run, read_finished
from zoo.errors import SavedModelError, fault_list


def finished_choice(folder: Path, record: dict[str, Any]) -> Run | None:
    """Return the result of a choice that began in a folder with the same options and target; None where it is not finished.

    Args:
        folder: The folder.
        record: What must be the same, by name.

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
    differing = [f"{name} was {before.get(name)} and is {value}" for name, value in record.items() if before.get(name) != value]
    if differing:
        remedy = "Give the same as before, or start anew (out, --out)"
        raise SavedModelError(fault_list(f"the choice in {str(folder)!r} cannot go on:", differing, remedy))
    return read_finished(folder)
