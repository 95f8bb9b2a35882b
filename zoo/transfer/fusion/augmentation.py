"""Augmentation of the images of a fusion: by the words and the rule of other runs; texts, numbers and labels stay as they are."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zoo.data.images.augment import Augment
from zoo.data.images.bands import PICTURE_CHANNELS
from zoo.data.images.transforms import LazyInput, Transform, train_transform
from zoo.declare import Image
from zoo.engine.options.augment_options import ON_BATCHES, resolve_augment
from zoo.engine.solved.augmentation_choice import views_help
from zoo.tasks.find import find_task
from zoo.transfer.fusion.model import Fusion
from zoo.transfer.fusion.parts import Parts
from zoo.transfer.fusion.solved import Features, HeadData, joined

USUAL = "auto"
SWITCHES = ("rand_augment", "erase")  # options of fit() that become fields of the augmentation, of single images


def asks(training: Mapping[str, Any]) -> bool | None:
    """Return whether options of a training ask for augmented images, True or False; None where the usual rule decides."""
    if any(training.get(name) for name in SWITCHES):
        return True
    given = training.get("augment")
    if given is None or (isinstance(given, str) and given == USUAL):
        return None
    return not (isinstance(given, str) and given == "none")


def augment_faults(image: Any, training: Mapping[str, Any]) -> list[str]:
    """Return why the images of a fusion cannot be augmented so.

    Args:
        image: The image backbone, or a model of images; None for no images.
        training: The options of the training.
    """
    given, faults = training.get("augment"), []
    if not asks(training):
        return []
    if image is None:
        return ["augment: it is for images, and there is no image="]
    fields = asdict(given) if is_dataclass(given) and not isinstance(given, type) else given
    mixed = [name for name in ON_BATCHES if isinstance(fields, Mapping) and fields.get(name)]
    if mixed:
        faults.append(f"augment: {', '.join(mixed)} would mix the texts and the numbers of two rows too; leave it out")
    magnitude = training.get("rand_augment") or (fields.get("rand_augment") if isinstance(fields, Mapping) else fields == "strong")
    inputs = image.spec.inputs
    if magnitude and isinstance(inputs, Image) and inputs.channels not in PICTURE_CHANNELS:
        faults.append(f"rand_augment is for pictures of 1 or 3 channels, and {image.spec.name!r} takes {inputs.channels}")
    return faults


def without_mixtures(augment: Any) -> Any:
    """Return an augmentation that was checked, without what mixes the rows of a batch; a function of the user's own as it is."""
    if callable(augment):
        return augment
    fields = resolve_augment(augment, {}, [])
    return "none" if fields is None else {name: value for name, value in fields.items() if name not in ON_BATCHES}


def is_augmented(fusion: Fusion, parts: Parts, features: Features, data: HeadData, tune: str, training: Mapping[str, Any]) -> bool:
    """Return whether the images of the last phase are augmented.

    Unless the training says so: where whole towers train, and augmented views of the images do not raise the loss of held-out rows by a
    head on all parts. This is the rule of a backbone alone, of which only the recipes that train all of it augment images.

    Args:
        fusion: The fusion, with its blocks.
        parts: The training rows, without those that judge the epochs.
        features: Their features.
        data: Their labels.
        tune: What of the backbones trains.
        training: Options of ``TaskModel.fit``.
    """
    if "image" not in fusion.models:
        return False
    asked = asks(training)
    if asked is not None or tune in ("none", "top"):
        return bool(asked)
    task = find_task(fusion.task)

    def views_of(number: int) -> list[Tensor]:
        return [joined({**features, "image": _view(fusion, parts, data.seed, view)}, fusion.blocks) for view in range(1, number + 1)]

    outputs, where = len(fusion.classes), torch.device("cpu")
    rows = joined(features, fusion.blocks)
    return views_help(rows, views_of, data.labels, outputs, task.loss, device=where, seed=data.seed, poll=lambda: None)


@dataclass(frozen=True)
class _AugmentedImage(LazyInput):
    """One view of an image."""

    source: Any
    own: Transform
    key: str

    def tensor(self, transform: Any, rng: random.Random) -> Tensor:
        """Return the view, by its own transform and random numbers."""
        return self.own(self.source, random.Random(self.key))


def _view(fusion: Fusion, parts: Parts, seed: int, view: int) -> tuple[Tensor, Tensor]:
    """Return the features of augmented images, by the usual augmentation."""
    inputs: Any = fusion.models["image"].inputs
    transform = train_transform(inputs, Augment())
    images: Sequence[Any] = parts.inputs["image"]
    lazy = [_AugmentedImage(image, transform, f"{seed}/{view}/{row}") for row, image in enumerate(images)]
    return fusion.part_features(replace(parts, inputs={**parts.inputs, "image": lazy}), "image")
