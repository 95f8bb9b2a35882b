"""A declared input with the size, length, overflow or window that options ask for."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from zoo.declare import OVERFLOWS, Image, Inputs, Text, Volume
from zoo.errors import OptionError, did_you_mean
from zoo.models.task_model import TaskModel
from zoo.util.numbers import is_whole, whole_of

log = logging.getLogger("zoo")


def resized(model: TaskModel, inputs: Inputs, size: Any) -> Inputs:
    """Return a declared image of another size in pixels, ``(height, width)`` or one number for a square.

    Raises:
        OptionError: If it is not an image, the size is not positive, or the backbone runs at its own size only.
    """
    size = whole_of(size)
    sides = (size, size) if is_whole(size) else [*map(whole_of, size)] if isinstance(size, list | tuple) else ()
    if not (len(sides) == 2 and all(map(is_whole, sides))):
        raise OptionError(f"image_size is {size!r}; it must be a number of pixels, or two (height, width)")
    if min(sides) < 1:
        raise OptionError(f"image_size is {size}; it must be at least 1 pixel")
    size = (int(sides[0]), int(sides[1]))
    if not isinstance(inputs, Image):
        hint = f"; zoo.get({model.spec.name!r}, img_size={size[0]}) builds it for another size" if isinstance(inputs, Volume) else ""
        raise OptionError(f"image_size is for images; backbone {model.spec.name!r} reads {model.spec.modality}s{hint}")
    if inputs.fixed_size and size != (inputs.height, inputs.width):
        wanted = size[0] if size[0] == size[1] else size
        raise OptionError(
            f"backbone {model.spec.name!r} runs at {inputs.height} x {inputs.width} pixels only; "
            f"build it for another size: zoo.get({model.spec.name!r}, img_size={wanted})"
        )
    return dataclasses.replace(inputs, size=size)


def shortened(model: TaskModel, inputs: Inputs, length: Any) -> Inputs:
    """Return a declared text of at most so many tokens.

    Raises:
        OptionError: If it is not a text, or the backbone has fewer positions.
    """
    if not isinstance(inputs, Text) or not isinstance(model.spec.inputs, Text):
        raise OptionError(f"max_length is for texts; backbone {model.spec.name!r} reads {model.spec.modality}s")
    declared = model.spec.inputs
    if length > declared.longest:
        raise OptionError(f"max_length is {length}; backbone {model.spec.name!r} takes at most {declared.longest} tokens")
    if length > declared.max_length:
        told = "max_length is %d; the publisher of backbone %r advises at most %d tokens, though its positions reach %d"
        log.warning(told, length, model.spec.name, declared.max_length, declared.longest)
    return dataclasses.replace(declared.with_length(length), overflow=inputs.overflow)


def overflowing(model: TaskModel, inputs: Inputs, overflow: Any) -> Inputs:
    """Return the declared text of a model whose longer samples are handled so; see ``with_overflow``."""
    return with_overflow(inputs, overflow, model.spec.modality)


def with_overflow(inputs: Inputs, overflow: str, modality: str) -> Inputs:
    """Return a declared text whose longer samples are truncated, refused or read in windows.

    Raises:
        OptionError: If it is not a text, or there is no such way.
    """
    if not isinstance(inputs, Text):
        raise OptionError(f"overflow is for texts; the model reads {modality}s")
    if overflow not in OVERFLOWS:
        raise OptionError(f"overflow is {overflow!r}{did_you_mean(overflow, OVERFLOWS)}; it is one of: {', '.join(OVERFLOWS)}")
    return dataclasses.replace(inputs, overflow=overflow)


def windowed(model: TaskModel, inputs: Inputs, window: Any) -> Inputs:
    """Return a declared image or volume that is shown through a window, its centre and width in the file's units.

    Raises:
        OptionError: If it is a text.
    """
    if isinstance(inputs, Text):
        raise OptionError(f"window is for DICOM images and volumes; backbone {model.spec.name!r} reads texts")
    return dataclasses.replace(inputs, window=window)
