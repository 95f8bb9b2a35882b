"""The saved model that a command names, and what was meant where it names something else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import SavedModelError, ZooError

if TYPE_CHECKING:
    from zoo.saved.config import Config


def config_of(name: str, others: Sequence[str], order: str) -> Config:
    """Return the configuration of a saved model, without importing torch.

    Args:
        name: Its folder, as typed.
        others: The arguments behind it.
        order: That of the arguments of the command, such as ``zoo eval MODEL DATA``.

    Raises:
        SavedModelError: If it is none; a backbone's name and arguments in another order are told as such.
    """
    from zoo.saved.config import read_config

    try:
        return read_config(Path(name))
    except SavedModelError as error:
        if meant := _meant(name, others, order):
            raise SavedModelError(meant) from error
        raise


def _meant(name: str, others: Sequence[str], order: str) -> str:
    """Return in words what is wrong with the name of a model where more is known than that it is none; else nothing."""
    from zoo.models.backbone import find_backbone

    if any((Path(other) / "config.json").is_file() for other in others) and not (Path(name) / "config.json").is_file():
        return f"{name!r} is not a saved model, and a later argument is; the order is {order}"
    try:
        spec = find_backbone(name).spec if not Path(name).exists() else None
    except ZooError:
        return ""
    if spec is None:
        return ""
    train = f"train one on labelled data, zoo train {name} DATA --out runs/mine, and give its folder"
    return f"{name!r} is a pretrained backbone, which has no classes yet; {train} (zoo embed takes {name} as it is)"
