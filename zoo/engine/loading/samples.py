"""The samples of a table as a declared input wants them."""

from __future__ import annotations

from typing import Any

from zoo.data.dataset import Samples
from zoo.data.open import Table
from zoo.data.text import TextSamples
from zoo.data.transforms import Augment, Transform, eval_transform, train_transform
from zoo.declare import Image, Text


def samples_for(inputs: Any, table: Table, augment: Augment | None = None, *, seed: int = 0) -> Samples | TextSamples:
    """Return the samples of a table as a declared input wants them; without ``augment`` as for evaluation."""
    if isinstance(inputs, Text):
        return TextSamples(table, inputs)
    return Samples(table, transform_for(inputs, augment), seed)


def transform_for(inputs: Any, augment: Augment | None = None) -> Transform:
    """Return the transform of a declared image or volume; without ``augment`` the evaluation transform."""
    if isinstance(inputs, Image):
        return eval_transform(inputs) if augment is None else train_transform(inputs, augment)
    from zoo.data.volumes import volume_transform

    return volume_transform(inputs, augment)
