"""Log lines about images that are read as the rules say, and may be meant otherwise, judged by a few of a table."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from zoo.data.images.bands import PICTURE_CHANNELS
from zoo.data.table import Table
from zoo.data.table_sample import sample_inputs
from zoo.errors import count, examples

log = logging.getLogger("zoo")
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_DARK = 16  # of the 256 grey levels: the values use less than a sixteenth of the range
_HIGHEST = 65535


def warn_of_pixels(table: Table, channels: int) -> None:
    """Warn of a fourth channel that is read as transparency, and of 16-bit files that use a small part of their range.

    Args:
        table: The rows; only files are looked at.
        channels: Channels of the model's input.
    """
    if table.reads != "image" or channels not in PICTURE_CHANNELS or not isinstance(table.inputs, list):
        return
    paths = [item for item in sample_inputs(table, only_if=lambda first: isinstance(first, str)) if isinstance(item, str)]
    if see_through := _named(paths, _has_alpha):
        line = "%s: %s have a fourth channel, which is taken as transparency and laid on white: %s; adapt(in_chans=4) reads it as a band"
        log.warning(line, table.source, _share(see_through, paths), examples(see_through))
    highest = [value for path in paths if (value := _highest(path)) is not None]
    if highest and max(highest) < _HIGHEST * _DARK / 256:
        line = "%s: %s of 16 bits have no value above %d, and 65535 is white, so they are nearly black; scale them, such as 12 bits by 16"
        log.warning(line, table.source, _share(highest, paths), max(highest))


def _named(paths: list[str], found: Callable[[str], bool]) -> list[str]:
    return [repr(os.fspath(path)) for path in paths if found(path)]


def _share(found: list[Any], paths: list[str]) -> str:
    return f"{len(found)} of {count(len(paths), 'image')} looked at"


def _has_alpha(path: str) -> bool:
    """Return whether a file has a fourth channel with other values than opaque."""
    with suppress(Exception), Path(path).open("rb") as file, PIL.Image.open(file) as image:  # a damaged one is reported when it is used
        return image.mode in _ALPHA and image.getchannel("A").getextrema() != (255, 255)
    return False


def _highest(path: str) -> int | None:
    """Return the highest value of a file of 16-bit grey, None for others."""
    with suppress(Exception), Path(path).open("rb") as file, PIL.Image.open(file) as image:
        if image.mode.startswith("I;16"):
            return int(np.asarray(image).max())
    return None
