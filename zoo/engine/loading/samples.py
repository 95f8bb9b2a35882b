"""Samples of a table with the transform of a declared input."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from zoo.data.dataset import Samples
from zoo.data.images.augment import Augment
from zoo.data.images.own_augmentation import OwnAugmentation
from zoo.data.images.transforms import Transform, eval_transform, train_transform
from zoo.data.table import Table
from zoo.data.texts.augment import AugmentedTexts, TextAugment
from zoo.data.texts.token_ids import TextSamples
from zoo.data.unreadable import ReadableSamples
from zoo.declare import Image, Text
from zoo.engine.options.augment_options import resolve_augment
from zoo.errors import OptionError


def samples_for(
    inputs: Any,
    table: Table,
    augment: Augment | TextAugment | None = None,
    *,
    seed: int = 0,
    own: Callable[[Any], Any] | None = None,
    skip: bool = False,
    beside: Sequence[Any] = (),
    quiet: bool = False,
) -> Samples | TextSamples:
    """Return the samples of a table for a declared input; without ``augment`` for evaluation.

    Args:
        inputs: The declared input.
        table: The data.
        augment: The augmentation, or None; texts have one of their own, and any other leaves them as they are.
        seed: Seed of the augmentation.
        own: The user's own augmentation in place of ``augment``, or None.
        skip: Leave images and volumes that cannot be read out of their batch, see ``ReadableSamples``.
        beside: Further declared inputs that the same augmented views are made for.
        quiet: Do not log how many texts are cut.
    """
    if isinstance(inputs, Text):
        return AugmentedTexts(table, inputs, augment, seed) if isinstance(augment, TextAugment) else TextSamples(table, inputs, quiet=quiet)
    assert not isinstance(augment, TextAugment), "make_objective refuses views of another kind of input"
    if own is not None and augment is not None:
        return Samples(table, OwnAugmentation(inputs, own), seed)
    return (ReadableSamples if skip else Samples)(table, transform_for(inputs, augment, beside=beside), seed)


def transform_for(inputs: Any, augment: Augment | None = None, *, beside: Sequence[Any] = ()) -> Transform:
    """Return the transform of a declared image or volume; without ``augment`` the evaluation transform."""
    if isinstance(inputs, Image):
        if augment is None:
            return eval_transform(inputs)
        return train_transform(inputs, augment, beside=[each for each in beside if isinstance(each, Image)])
    from zoo.data.images.scans.volumes import volume_transform

    return volume_transform(inputs, augment)


def single_transform(inputs: Any, augment: Any, *, seed: int) -> Callable[[Any], Tensor]:
    """Return a function from one image or volume to a tensor; see ``TaskModel.transform``.

    Raises:
        OptionError: If the inputs are texts, or there is no such augmentation.
    """
    if isinstance(inputs, Text):
        raise OptionError("transform is for images and volumes; a text is encoded by the tokenizer of its model")
    faults: list[str] = []
    fields = None if augment is None or callable(augment) else resolve_augment(augment, {}, faults)
    if faults:
        raise OptionError("; ".join(faults))
    if callable(augment) and not isinstance(inputs, Image):
        raise OptionError("augment: a function is for images, and the model reads volumes")
    varied = None if fields is None else Augment(**fields)
    one = OwnAugmentation(inputs, augment) if callable(augment) else transform_for(inputs, varied)
    rng = random.Random(seed)
    return lambda source: one(source, rng)
