"""The error of a folder that does not exist where a saved model or a run is wanted."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import SavedModelError, ZooError
from zoo.registry.registry import default_registry
from zoo.util.near_paths import did_you_mean_path


def missing_folder(folder: Path, wanted: str) -> SavedModelError:
    """Return the error of a folder that does not exist, which says so of the name of a backbone, and else names the nearest folder.

    Args:
        folder: The folder.
        wanted: What to give instead, such as ``the folder of a saved model``.
    """
    name = str(folder)
    if not _is_backbone(name):
        return SavedModelError(f"there is no folder {name!r}{did_you_mean_path(folder)}; give {wanted}")
    train = f"train one on labelled data, zoo train {name} DATA --out runs/mine, and give its folder"
    return SavedModelError(
        f"{name!r} is a pretrained backbone, which has no trained head yet: zoo.get({name!r}) opens it, to be adapted; {train}"
    )


def _is_backbone(name: str) -> bool:
    try:
        default_registry().resolve(name)
    except ZooError:
        return False
    return True
