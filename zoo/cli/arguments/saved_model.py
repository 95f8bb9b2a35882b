"""Configuration of the saved model that a command is given, with a remedy where the name is of something else."""

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
        SavedModelError: If it is not a saved model; the message says so of a backbone's name, and of arguments in the wrong order.
    """
    from zoo.saved.config import read_config

    try:
        return read_config(Path(name))
    except SavedModelError as error:
        if mistake := _likely_mistake(name, others, order):
            raise SavedModelError(mistake) from error
        raise


def _likely_mistake(name: str, others: Sequence[str], order: str) -> str:
    """Return a message about arguments in the wrong order, or a backbone instead of a saved model; empty if it is neither."""
    from zoo.models.find import find_backbone

    if any((Path(other) / "config.json").is_file() for other in others) and not (Path(name) / "config.json").is_file():
        return f"{name!r} is not a saved model, and a later argument is; the order is {order}"
    if Path(name).exists():
        return ""
    try:
        find_backbone(name)
    except ZooError:
        return ""
    train = f"train one on labelled data, zoo train {name} DATA --out runs/mine, and give its folder"
    return f"{name!r} is a pretrained backbone, which has no classes yet; {train} (zoo embed takes {name} as it is)"
