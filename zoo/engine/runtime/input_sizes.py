"""Errors of networks that cannot read images or volumes of a size, with a size that works."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from zoo.declare import Image, Inputs, Text
from zoo.engine.runtime.oom import is_out_of_memory
from zoo.errors import OptionError, ZooError
from zoo.models.task_model import TaskModel
from zoo.models.wrap import OWN_NETWORK

_SIDES = (*range(16, 129, 16), *range(160, 513, 32))  # tried, in pixels or voxels
_VOXELS = 128**3  # of the largest input tried: 512 pixels a side have fewer, and volumes take memory for each
_TIMES = 4  # the sides in use and declared, the largest side tried


@contextmanager
def explained_size(model: TaskModel, inputs: Inputs | None = None) -> Iterator[None]:
    """Explain an error of the network if it cannot read inputs of this size and reads larger ones.

    Args:
        model: The model.
        inputs: The input in use; None for that of the model.

    Raises:
        OptionError: In place of such an error, with the option and a size that works.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ZooError) or is_out_of_memory(error):
            raise
        inputs = inputs or model.inputs
        if isinstance(inputs, Text) or _reads(model, inputs.shape):
            raise
        channels, *sides = inputs.shape
        declared = model.spec.inputs.shape[1:] if isinstance(model.spec.inputs, type(inputs)) else ()
        candidates = _candidates(sides, declared)
        works = next((side for side in candidates if _reads(model, (channels, *[side] * len(sides)))), None)
        if works is None:
            raise
        kind, unit = ("images", "pixels") if isinstance(inputs, Image) else ("volumes", "voxels")
        first = str(error).partition("\n")[0]
        raise OptionError(
            f"backbone {model.spec.name!r} cannot read {kind} of {' x '.join(map(str, sides))} {unit} ({first}); "
            f"{works} a side works: {_remedy(model, inputs, works)}"
        ) from error


def _candidates(sides: Sequence[int], declared: Sequence[int]) -> list[int]:
    """Return the sides to try, ascending: above the shortest in use, and neither far above these nor too large for memory."""
    largest = max(declared, default=0)
    bound = max(_SIDES[0], _TIMES * max(*sides, largest))
    tried = [side for side in _SIDES if side <= bound and side ** len(sides) <= _VOXELS]
    return sorted(side for side in {*tried, largest} if side > min(sides))


def _remedy(model: TaskModel, inputs: Inputs, side: int) -> str:
    if isinstance(inputs, Image) and not inputs.fixed_size:
        return f"image_size={side} (--image-size {side})"
    if model.spec.build == OWN_NETWORK:
        return f"wrap it with inputs=zoo.{type(inputs).__name__}(size={side}, …)"
    return f"zoo.get({model.spec.name!r}, img_size={side})"


def _reads(model: TaskModel, shape: tuple[int, ...]) -> bool:
    """Return whether a model takes a batch of zeros of a shape, in eval mode."""
    like = next((value for value in model.parameters() if value.is_floating_point()), torch.empty(0))
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(2, *shape, device=like.device, dtype=like.dtype))
    except Exception:  # of any network
        return False
    finally:
        for module, mode in modes:
            module.training = mode
    return True
