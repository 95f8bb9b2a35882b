"""What a run trains on, opened and checked against the model before anything expensive happens."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.dataset import drop_corrupt
from zoo.data.folders import PICTURES
from zoo.data.open import Table, open_train_valid
from zoo.data.read import TEXTUAL, kind_of
from zoo.data.table import flat_targets
from zoo.declare import Image, Text
from zoo.engine.options.augment_options import AUGMENTS, resolve_augment
from zoo.engine.options.config import Config
from zoo.engine.options.recipe import phase_epochs
from zoo.errors import DataError, OptionError, count, examples, fault_list
from zoo.models.task_model import TaskModel

log = logging.getLogger("zoo")
MIXES = ("mixup", "cutmix", "erase", "rand_augment")


def check_fits(model: TaskModel, config: Config, *, validated: bool = True) -> None:
    """Refuse what the model or its task has no use for, instead of ignoring it.

    Args:
        model: The model.
        config: The resolved configuration.
        validated: Whether there will be validation data.

    Raises:
        OptionError: If options for images meet texts, or options for classes meet a regression, and the like; all at once.
    """
    _warn(model, config)
    kind = model.spec.modality
    pixels = [name for name in ("views", "on_corrupt") if kind == "text" and _given(config, name)]
    pixels += _augments_in_vain(config, kind)
    labels = [name for name in ("class_weights", "balanced_sampling", "label_smoothing") if getattr(config, name)]
    waits = [name for name in ("patience", "monitor") if getattr(config, name)]
    waits += ["schedule='plateau'"] if "plateau" in (config.schedule, *(phase.schedule for phase in config.recipe.phases)) else []
    useless = [
        (kind != "image", pixels, f"meant for images, and {model.spec.name!r} reads {kind}s"),
        (model.task == "regression", labels, "meant for classes, and a regression has none"),
        (
            model.task == "token-classification",
            [name for name in labels if name == "balanced_sampling"],
            "it draws whole samples, and a sentence has labels of several classes; use class_weights",
        ),
        (
            not model.pretrained,
            ["freeze_bn"] if config.freeze_bn and not config.recipe.freeze_bn else [],
            f"it keeps pretrained statistics, and {model.spec.name!r} starts from random values",
        ),
        (not validated, waits, "decided by a metric, and there are no validation data"),
    ]
    faults = [f"{', '.join(names)}: {why}" for given, names, why in useless if given and names]
    faults += _apart(config)
    if faults:
        raise OptionError(fault_list("these options do not suit the run:", faults, "Leave out what is named"))


def _warn(model: TaskModel, config: Config) -> None:
    """Tell of what can be meant, and mostly is not."""
    phases = config.recipe.phases
    if not model.pretrained and phases[0].frozen == "all":
        told = "%s starts from random values, and the recipe %r first trains a head on its features; recipe='full' suits it better"
        log.warning(told, model.spec.name, config.recipe.name)
    left_out = [phase.name for phase, epochs in zip(phases, phase_epochs(phases, config.epochs), strict=True) if not epochs]
    if left_out:
        told = "epochs is %d and the recipe %r has %d phases; left out: %s"
        log.warning(told, config.epochs, config.recipe.name, len(phases), ", ".join(left_out))
    for phase, epochs in zip(phases, phase_epochs(phases, config.epochs), strict=True):
        if phase.frozen == "each" and 0 < epochs < len(model.groups):
            told = "phase %r has %s for %d groups, so it unfreezes several at a time; give it more epochs"
            log.warning(told, phase.name, count(epochs, "epoch"), len(model.groups))
    if config.wise_ft < 1 and len(phases) - len(left_out) == 1:
        told = "wise_ft mixes in the values from before the last phase, and there is one phase only: where the head is new, they are random"
        log.warning(told)


def _apart(config: Config) -> list[str]:
    """Return which options do not go with each other."""
    mixed = [name for name in ("mixup", "cutmix") if (config.augment or {}).get(name)]
    hooked = [name for name in ("delta", "bss", "drop_path", "recompute") if getattr(config, name)]
    means = [name for name in ("average", "wise_ft") if _given(config, name)]
    pairs = [
        (config.views > 1, mixed, "views", "views are kept of single samples"),
        (config.compile, hooked, "compile", "compiled code does not see what is hooked into a network"),
        (
            config.trains == "lora",
            means,
            "lora",
            "what LoRA trains are factors of weights, and a mean of factors is not that of their products",
        ),
    ]
    return [f"{', '.join(found)} with {other}: {why}" for given, found, other, why in pairs if given and found]


def _augments_in_vain(config: Config, kind: str) -> list[str]:
    """Return what was given of an augmentation and changes nothing for inputs of this kind."""
    augment = config.augment or {}
    mixes = [name for name in MIXES if kind != "image" and augment.get(name)]
    named = [fields for name, fields in AUGMENTS.items() if name != config.recipe.augment]
    usual = resolve_augment(config.recipe.augment, {}, []) or {}
    other = augment in named or any(augment.get(name) != usual.get(name) for name in augment if name not in MIXES)
    return ["augment"] if kind == "text" and augment and other else mixes


def _given(config: Config, name: str) -> bool:
    """Tell whether an option differs from what it is if nobody gives it."""
    return bool(getattr(config, name) != Config.model_fields[name].default)


def reads(model: TaskModel) -> str:
    """Return what one input of the model is; see ``zoo.data.table.Table.reads``."""
    return kind_of(model.inputs, model.task)


def open_for_fit(model: TaskModel, train: Any, valid: Any, config: Config) -> tuple[Table, Table | None]:
    """Open the training and validation data and check their targets against the model.

    ``valid=False`` trains on everything; there is then no best epoch, and the last one is kept.

    Raises:
        DataError: If the data do not fit the model.
    """
    first, second = open_train_valid(
        train,
        valid,
        task=model.task,
        classes=model.labels,
        columns=config.columns,
        valid_split=config.valid_split,
        seed=config.seed,
        allow_leak=config.allow_leak,
        drop_other_classes=config.drop_other_classes,
        reads=reads(model),
    )
    check_targets(model, first)
    if second is not None:
        check_targets(model, second)
    refuse_window(config.window, first)
    if config.on_corrupt == "skip":
        window = config.window or getattr(model.inputs, "window", None)
        channels = 0 if isinstance(model.inputs, Text) else model.inputs.channels
        first = drop_corrupt(first, config.max_corrupt, window, channels=channels)
        second = second and drop_corrupt(second, config.max_corrupt, window, channels=channels)
    return first, second


def refuse_window(window: tuple[float, float] | None, table: Table) -> None:
    """Refuse a window where there is no scan to be shown through it: pictures have the values that they are shown with.

    Raises:
        OptionError: If a window is given and all inputs are pictures.
    """
    names = [name for name in table.inputs if isinstance(name, str | os.PathLike)] if isinstance(table.inputs, list) else []
    pictures = bool(names) and all(os.fspath(name).lower().endswith(PICTURES) for name in names)
    if window is not None and pictures:
        raise OptionError(f"window: it is for DICOM files and volumes, and {table.source} has pictures; leave it out")


def check_targets(model: TaskModel, table: Table) -> None:
    """Refuse labelled data whose classes or number of outputs differ from the model's.

    Raises:
        DataError: Naming both sides.
    """
    if table.targets is None:
        raise DataError(f"{table.source} has no labels; give class folders, a label column, or (X, y)")
    if model.task == "regression":
        outputs = 1 if table.targets.ndim == 1 else table.targets.shape[1]
        if outputs != model.num_classes:
            raise DataError(f"{table.source} has {outputs} target values per sample, the model has num_classes={model.num_classes} outputs")
        return
    if len(table.classes) != model.num_classes:
        raise DataError(
            f"{table.source} has {len(table.classes)} classes ({examples(table.classes, 8)}), "
            f"the model has num_classes={model.num_classes}; build it with adapt({len(table.classes)}) or remove the surplus"
        )
    if model.labels is not None and table.classes != model.labels:
        raise DataError(f"{table.source} has the classes {examples(table.classes, 8)}, the model has {examples(model.labels, 8)}")


def resize_inputs(model: TaskModel, size: tuple[int, int] | None) -> None:
    """Make the model take images of ``size`` (height, width) from now on, in place.

    Raises:
        OptionError: If the model does not take images, or takes one size only.
    """
    if size is None:
        return
    if not isinstance(model.inputs, Image):
        raise OptionError(f"image_size is for images; backbone {model.spec.name!r} reads {model.spec.modality}")
    if model.inputs.fixed_size and size != (model.inputs.height, model.inputs.width):
        wanted = size[0] if size[0] == size[1] else size
        raise OptionError(
            f"backbone {model.spec.name!r} runs at {model.inputs.height} x {model.inputs.width} pixels only; "
            f"build it for another size: zoo.get({model.spec.name!r}, img_size={wanted})"
        )
    model.inputs = dataclasses.replace(model.inputs, size=size)


def shorten_inputs(model: TaskModel, length: int | None) -> None:
    """Make the model cut texts to ``length`` tokens from now on, in place.

    Raises:
        OptionError: If the model reads no text, or not as much.
    """
    if length is None:
        return
    if not isinstance(model.inputs, Text) or not isinstance(model.spec.inputs, Text):
        raise OptionError(f"max_length is for texts; backbone {model.spec.name!r} reads {model.spec.modality}s")
    if length > model.spec.inputs.max_length:
        raise OptionError(f"max_length is {length}; backbone {model.spec.name!r} takes at most {model.spec.inputs.max_length} tokens")
    model.inputs = dataclasses.replace(model.inputs, max_length=length)


def window_inputs(model: TaskModel, window: tuple[float, float] | None) -> None:
    """Make the model's DICOM images or volumes be shown through a window (centre, width) from now on, in place.

    Raises:
        OptionError: If the model reads texts.
    """
    if window is None:
        return
    if isinstance(model.inputs, Text):
        raise OptionError(f"window is for DICOM images and volumes; backbone {model.spec.name!r} reads texts")
    model.inputs = dataclasses.replace(model.inputs, window=window)


def summary(table: Table | None) -> dict[str, Any] | None:
    """Return what identifies a table: source, counts, and a digest over the names and targets of its samples."""
    if table is None:
        return None
    digest = hashlib.sha256(np.ascontiguousarray(flat_targets(np.asarray(table.targets))).tobytes())
    names = table.inputs if isinstance(table.inputs, list | tuple) else []
    # The last two parts only: a data folder may move between a run and its continuation.
    for name in names:
        if table.reads in TEXTUAL:
            digest.update(repr(name).encode())
        else:
            digest.update("/".join(Path(name).parts[-2:]).encode() if isinstance(name, str | os.PathLike) else b"?")
    return {"source": table.source, "samples": len(table), "classes": table.counts(), "sha256": digest.hexdigest()}
