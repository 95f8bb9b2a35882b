"""Outputs of a saved model for a fixed input, which show that another version of a library computes something else.

Digests guard the files of a saved model, and not the code of other libraries that reads them: a network, a tokenizer or a resize that
changes with a release gives other predictions from the same files.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.images.transforms import eval_transform
from zoo.data.texts.tokenizers import open_tokenizer
from zoo.declare import Image, Text, Volume
from zoo.util.versions import versions

if TYPE_CHECKING:
    from zoo.models.task_model import TaskModel
    from zoo.saved.config import Config

log = logging.getLogger("zoo")

TOLERANCE = 1e-3
"""Largest difference that rounding explains, as a share of the largest output, or of 1."""

HIGHEST = "highest"
_OUTPUTS = 16  # of the first ones
_SIDE = 120  # pixels of the fixed image, which is resized as others are
_SENTENCE = "The 3 quick brown foxes, unlike Zoë's dog, jumped over a fence."
_UNUSED = random.Random(0)  # transforms of evaluation draw nothing
_NO_INFLUENCE = ("python", "zoo", "huggingface-hub", "accelerate", "safetensors", "scikit-learn")


def reference_outputs(model: TaskModel) -> list[float]:
    """Return the first outputs of a model for a fixed input of its kind; empty if it has none, as it cannot read one by itself.

    The input takes the way of any other: it is resized and normalised, or divided into tokens. The result is finite.
    """
    try:
        with _as_in_use(model), torch.no_grad():
            found = model(_fixed_input(model)).flatten()[:_OUTPUTS].double()
    except Exception as error:  # of a network or a tokenizer of anybody: it must not prevent saving
        log.debug("there are no reference outputs: %s", error)
        return []
    return [float(value) for value in found] if found.isfinite().all() else []


def changed_versions(config: Config) -> dict[str, tuple[str, str]]:
    """Return the packages that compute outputs and have another version than when the model was saved: theirs, then today's."""
    then = config.zoo.versions
    now = versions(then)
    return {name: (then[name], now.get(name, "none")) for name in then if name not in _NO_INFLUENCE and then[name] != now.get(name)}


def difference(model: TaskModel, saved: Sequence[float]) -> float | None:
    """Return the largest difference of a model's outputs to those when it was saved, as a share of the largest, or of 1.

    Returns:
        None if there is nothing to compare with: nothing was saved, or the network gives other outputs each time. Infinity if it gives none
        any more, none that are finite, or another number of them.
    """
    if not saved:
        return None
    found = reference_outputs(model)
    if len(found) != len(saved):
        return math.inf
    then = np.asarray(saved)
    scale = max(1.0, float(np.abs(then).max()))
    apart = float(np.abs(np.asarray(found) - then).max()) / scale
    if apart <= TOLERANCE:
        return apart
    again = reference_outputs(model)
    is_random = len(again) == len(found) and float(np.abs(np.asarray(found) - again).max()) / scale > TOLERANCE
    return None if is_random else apart


def warn_of_changes(model: TaskModel, config: Config, folder: Path) -> None:
    """Log a warning if a model computes something else than when it was saved; looks only where versions of libraries differ."""
    changed = changed_versions(config)
    apart = difference(model, config.zoo.reference_outputs) if changed else None
    if apart is None or apart <= TOLERANCE:
        return
    named = ", ".join(f"{name} {then} (now {now})" for name, (then, now) in changed.items())
    log.warning(
        "%s predicts something else than when it was saved: for a fixed input its outputs differ by %.2g; it was saved with %s. "
        "Install these versions, or evaluate the model again before you rely on it",
        folder,
        apart,
        named,
    )


def _fixed_input(model: TaskModel) -> Tensor | Mapping[str, Tensor]:
    """Return the fixed input as a batch of one sample, prepared as the model's inputs are."""
    inputs, device = model.inputs, next(model.parameters()).device
    if isinstance(inputs, Text):
        encoding = open_tokenizer(inputs).encode([_SENTENCE], inputs.max_length)[0]
        return {name: torch.as_tensor(np.asarray(values))[None].to(device) for name, values in encoding.items()}
    return _prepared(inputs)[None].to(device)


def _prepared(inputs: Any) -> Tensor:
    if isinstance(inputs, Volume):
        from zoo.data.images.scans.volumes import volume_transform

        return volume_transform(inputs, None)(_pattern((inputs.channels, *inputs.size)).astype(np.float32), _UNUSED)  # type: ignore[misc]
    if isinstance(inputs, Image) and inputs.ready_made:
        return torch.from_numpy(_pattern(inputs.shape).astype(np.float32) / 128 - 1)
    return eval_transform(inputs)(_pattern((_SIDE, _SIDE, inputs.channels)).astype(np.uint8), _UNUSED)


def _pattern(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return whole numbers from 0 to 255 that rise along each axis at another pace, and start again."""
    paces = (2, 3, 5, 7)[: len(shape)]
    rising: np.ndarray[Any, Any] = np.tensordot(np.array(paces), np.indices(shape), 1)
    return rising % 256


@contextmanager
def _as_in_use(model: TaskModel) -> Iterator[None]:
    """Set every module to eval mode and torch to full float32, and restore both."""
    trains, precision = [module for module in model.modules() if module.training], torch.get_float32_matmul_precision()
    try:
        model.eval()
        if precision != HIGHEST:  # setting what is set turns "none" into "ieee", and frozen features are kept by these words
            torch.set_float32_matmul_precision(HIGHEST)
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, deterministic=True, allow_tf32=False):
            yield
    finally:
        if precision != HIGHEST:
            torch.set_float32_matmul_precision(precision)
        for module in trains:
            module.training = True
