"""Saved ensembles: a folder with ``ensemble.json``, which names the folders of its members below it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.errors import SavedModelError
from zoo.models.ensemble import Ensemble
from zoo.saved.config import ENSEMBLE, EnsembleConfig, read_config, read_members
from zoo.saved.load import open_model
from zoo.saved.save import check_free, save, writing
from zoo.util.atomic_write import write_json


def save_ensemble(ensemble: Ensemble, folder: Path, *, overwrite: bool = False) -> Path:
    """Save the members in ``folder/member-N``, then ``ensemble.json``.

    Raises:
        OutputExistsError: If the folder holds anything, unless ``overwrite``.
        OutputPermissionError: If it cannot be written.
        SavedModelError: If writing fails, for example on a full disk.
    """
    check_free(folder, overwrite=overwrite)
    (folder / ENSEMBLE).unlink(missing_ok=True)
    names = [f"member-{number}" for number in range(len(ensemble.members))]
    for name, member in zip(names, ensemble.models, strict=True):
        save(member, folder / name, overwrite=overwrite)
    write_ensemble(folder, names)
    return folder


def write_ensemble(folder: Path, names: Sequence[str]) -> None:
    """Make a folder an ensemble of saved models in folders below it."""
    with writing(folder):
        write_json(folder / ENSEMBLE, EnsembleConfig(members=list(names)).model_dump())


def load_ensemble(folder: Path) -> Ensemble:
    """Open the members of a saved ensemble, in eval mode.

    Raises:
        SavedModelError: If a member is missing or damaged, or is a network of the user's own.
    """
    members = []
    for path in read_members(folder):
        if not path.is_dir():
            raise SavedModelError(f"{str(folder)!r} is an ensemble without its member {path.name!r}; copy that folder as well")
        members.append(open_model(path, read_config(path)))
    return Ensemble(members).eval()
