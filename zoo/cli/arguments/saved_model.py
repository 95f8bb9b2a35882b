"""Configuration of the saved model that a command is given, with a remedy for arguments in the wrong order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import SavedModelError

if TYPE_CHECKING:
    from zoo.saved.config import Config

CONFIG = "config.json"


def config_of(name: str, others: Sequence[str], order: str) -> Config:
    """Return the configuration of a saved model, without importing torch.

    Args:
        name: Its folder, as typed.
        others: The arguments behind it.
        order: That of the arguments of the command, such as ``zoo eval MODEL DATA``.

    Raises:
        SavedModelError: If it is not a saved model; the message says so of arguments in the wrong order.
    """
    from zoo.saved.config import read_config

    if any((Path(other) / CONFIG).is_file() for other in others) and not Path(name, CONFIG).is_file():
        with suppress(SavedModelError):
            return read_config(Path(name))  # of an ensemble
        raise SavedModelError(f"{name!r} is not a saved model, and a later argument is; the order is {order}")
    return read_config(Path(name))
