"""Names that are paths on this machine, where a backbone is looked for: what lies there, and what is done with it."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from zoo.util.near_paths import did_you_mean_path

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".tar")


def local_reason(name: str, sources: Collection[str]) -> str:
    """Return why a path is no backbone that can be looked up by name, or an empty string if the name is no path.

    A path begins with ``.``, ``/`` or ``~``, ends like a file of weights, or lies in an existing folder that is called like no source.

    Args:
        name: The name.
        sources: First parts of the ids of backbones.
    """
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    below = "/" in name and name.partition("/")[0] not in sources and path.parent.is_dir()
    if not (name.startswith((".", "/", "~")) or name.lower().endswith(_WEIGHTS) or below):
        return ""
    if path.is_file() or name.lower().endswith(_WEIGHTS):
        found = "it is a file" if path.is_file() else f"there is no such file{did_you_mean_path(path)}"
        return f"{found}; a file of weights is given as weights=FILE (--weights FILE) beside the name of its backbone"
    if (path / "config.json").is_file() or (path / "ensemble.json").is_file():
        return "the folder holds a saved model, whose weights lie in it; there is nothing to fetch or to pin"
    if (path / "run.json").is_file():
        return run_without_model(path)
    if path.is_dir():
        return "the folder of this name holds no model; where it holds data, the backbone is named before them, as in zoo train NAME DATA"
    return f"there is no folder of this name that holds a model{did_you_mean_path(path)}"


def run_without_model(folder: Path) -> str:
    """Return why the folder of a run, or of a cross-validation, holds no model, with the remedy.

    Args:
        folder: A folder with ``run.json`` or ``cv.json`` and without ``config.json``.
    """
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # being written, or damaged
        record = {}
    if not (isinstance(record, dict) and "finished" in record):
        return "the run in this folder is not finished; wait for it or, where it was stopped, go on with it: resume=True (--resume)"
    above = folder.parent.parent
    remedy = f"; that of the chosen one is in {str(above)!r}" if (above / "config.json").is_file() else "; train it again"
    return f"the run in this folder is finished and its model was not kept, as those of candidates that were not chosen{remedy}"
