"""Open the data of a run and check them against the model."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.images.bands import PICTURE_CHANNELS
from zoo.data.images.first_look import warn_of_pixels
from zoo.data.images.float_tensors import FloatImages, has_non_float_inputs, read_floats
from zoo.data.open import open_train_valid
from zoo.data.raw import TEXTUAL
from zoo.data.sources.image_files import PICTURE_SUFFIXES
from zoo.data.sources.read import kind_of
from zoo.data.table import Table, View, flat_targets, spread_rows
from zoo.data.unreadable import all_corrupt, drop_corrupt
from zoo.declare import Image, Inputs, Text
from zoo.engine.loading.class_counts import warn_of_rare_classes
from zoo.engine.options.config import Config
from zoo.engine.options.option_checks import check_ready_made
from zoo.engine.runtime.input_changes import overflowing, resized, shortened, windowed
from zoo.errors import DataError, OptionError, examples, fault_message
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tasks.labels.names import check_classes, separator_hint

log = logging.getLogger("zoo")
UNCHANGED = "float tensors outside [0, 1] are the network's inputs as they are, neither resized, normalised nor augmented"
READY_MADE = f"{UNCHANGED}; predict from tensors made the same way"


def reads(model: TaskModel) -> str:
    """Return the kind of the model's inputs; see ``zoo.data.table.Table.reads``."""
    return kind_of(model.inputs, model.task)


def channels_of(model: TaskModel) -> int:
    """Return the channels of the model's images; 3 for a model that reads others."""
    return image_channels(model.inputs)


def image_channels(inputs: Inputs) -> int:
    """Return the channels of declared images; 3 for other inputs."""
    return inputs.channels if isinstance(inputs, Image) else 3


def open_for_fit(model: TaskModel, train: Any, valid: Any, config: Config, *, whole_up_to: int = 0) -> tuple[Table, Table | None]:
    """Open the training and validation data as a model reads them.

    ``valid=False`` trains on everything; there is then no best epoch, and the last one is used. So it is with at most
    ``whole_up_to`` samples where ``valid`` is None, see ``zoo.data.open.open_train_valid``.

    Raises:
        DataError: If the data cannot be read, or have no class of the model's.
    """
    how = config.opening | {"reads": reads(model), "channels": channels_of(model), "whole_up_to": whole_up_to}
    return open_train_valid(train, valid, task=model.task, classes=model.labels, **how)


def corrupt_files(model: TaskModel, tables: list[Table], config: Config) -> str:
    """Return how many files of a run cannot be decoded, with examples, see ``all_corrupt``."""
    return all_corrupt(tables, **_decoding(model, config))


def _decoding(model: TaskModel, config: Config) -> dict[str, Any]:
    window = config.window or getattr(model.inputs, "window", None)
    return {"window": window, "channels": 0 if isinstance(model.inputs, Text) else model.inputs.channels}


def check_tables(model: TaskModel, tables: tuple[Table, Table | None], config: Config, *, whole: bool = True) -> tuple[Table, Table | None]:
    """Check opened data against the model; return them without the samples that are left out because they are damaged.

    Args:
        model: The model.
        tables: Training and validation data.
        config: The options.
        whole: Whether they are all data, of which rare classes are warned of, or a part.

    Raises:
        DataError: If the data do not fit the model.
    """
    first, second = tables
    if isinstance(model.inputs, Image):
        first = read_floats(first, model.inputs.channels)
    if first.ready_made:
        check_ready_made(config)
        if not getattr(model.inputs, "ready_made", False):  # nothing new for a model that was declared or trained so
            log.warning("%s: %s", first.source, READY_MADE)
    second = second and _read_alike(model, second, first)
    check_targets(model, first)
    if second is not None:
        check_targets(model, second)
    refuse_window(config.window, first, channels_of(model))
    if config.on_corrupt == "skip":
        first, second = drop_corrupt(first, second, max_corrupt=config.max_corrupt, **_decoding(model, config))
    if isinstance(model.inputs, Image):
        warn_of_pixels(first, channels_of(model))
    if whole:
        warn_of_rare_classes(find_task(model.task), first, second, config.class_weights)
    return first, second


def beside_training(model: TaskModel, table: Table, train: Table, config: Config) -> Table:
    """Return a further table of a run without its labels, its float tensors read like those of the checked training data.

    With ``on_corrupt="skip"`` damaged samples are left out, counted apart from those of the training data.

    Args:
        model: The model.
        table: The further table.
        train: The training data, as ``check_tables`` returned them.
        config: The options.

    Raises:
        DataError: If float tensors of one are outside [0, 1] and the other has none like them, or if more samples are damaged than
            may be left out.
    """
    table = _read_alike(model, dataclasses.replace(table, targets=None, classes=()), train)
    if config.on_corrupt == "skip":
        table, _ = drop_corrupt(table, max_corrupt=config.max_corrupt, **_decoding(model, config))
    return table


def _read_alike(model: TaskModel, table: Table, train: Table) -> Table:
    if not isinstance(model.inputs, Image):
        return table
    if train.ready_made:
        if has_non_float_inputs(table):
            raise DataError(
                f"{train.source} has float tensors outside [0, 1], which are not prepared by the model, and {table.source} has images; "
                "prepare both in the same way"
            )
        return dataclasses.replace(table, ready_made=True)
    table = read_floats(table, model.inputs.channels)
    if table.ready_made and isinstance(train.inputs, FloatImages):
        raise DataError(
            f"{table.source} has float tensors outside [0, 1], and those of {train.source} are inside; prepare all of them or none"
        )
    return table


def inputs_in_use(model: TaskModel, config: Config, table: Table) -> Inputs:
    """Return the model's declared input with the image size, text length or window of a configuration, for a checked table.

    Raises:
        OptionError: If the model does not take such inputs, or not in this size; all faults at once.
    """
    inputs, faults = model.inputs, []
    changes = (
        (resized, config.image_size),
        (shortened, config.max_length),
        (overflowing, config.overflow),
        (windowed, config.window),
    )
    for change, wanted in changes:
        if wanted is not None:
            try:
                inputs = change(model, inputs, wanted)
            except OptionError as error:
                faults.append(str(error))
    if faults:
        raise OptionError(fault_message("the model cannot take these inputs:", faults))
    return dataclasses.replace(inputs, ready_made=table.ready_made) if isinstance(inputs, Image) else inputs


def as_trained(model: TaskModel, table: Table) -> Table:
    """Return a table for inference, its float tensors read as in the training of the model."""
    if not isinstance(model.inputs, Image):
        return table
    if not model.inputs.ready_made:
        table = read_floats(table, model.inputs.channels)
        if table.ready_made:
            log.warning("%s: %s", table.source, UNCHANGED)
        return table
    if has_non_float_inputs(table):
        line = "%s: the model was trained on float tensors that were prepared outside of it, and its own preprocessing may differ"
        log.warning(line, table.source)
    return table


def refuse_window(window: tuple[float, float] | None, table: Table, channels: int = 3) -> None:
    """Check that a window is given for scans and images of other than 1 or 3 channels only, not for pictures.

    Raises:
        OptionError: If a window is given and all inputs are pictures.
    """
    names = [name for name in table.inputs if isinstance(name, str | os.PathLike)] if isinstance(table.inputs, list) else []
    pictures = bool(names) and all(os.fspath(name).lower().endswith(PICTURE_SUFFIXES) for name in names)
    if window is not None and pictures and channels in PICTURE_CHANNELS:
        raise OptionError(f"window: it is for DICOM files and volumes, and {table.source} has pictures; leave it out")


def check_targets(model: TaskModel, table: Table) -> None:
    """Check that labelled data have the model's classes or number of outputs.

    Raises:
        DataError: Naming both sides.
    """
    if table.targets is None:
        raise DataError(f"{table.source} has no labels; give class folders, a label column, or (X, y)")
    if not find_task(model.task).has_classes:
        outputs = find_task(model.task).outputs(table.targets, table.classes)
        if outputs != model.num_classes:
            raise DataError(f"{table.source} has {outputs} target values per sample, the model has num_classes={model.num_classes} outputs")
        return
    if len(table.classes) != model.num_classes:
        found = f"{table.source} has {len(table.classes)} classes ({examples(table.classes, 8)})"
        remedy = separator_hint(table.classes) or f"build it with adapt({len(table.classes)}) or remove the surplus"
        raise DataError(f"{found}, the model has num_classes={model.num_classes}; {remedy}")
    if model.labels is not None and table.classes != check_classes(model.labels):
        raise DataError(f"{table.source} has the classes {examples(table.classes, 8)}, the model has {examples(model.labels, 8)}")


def table_digest(table: Table) -> str:
    """Return a digest by which the same labelled data are known again: of their targets and names, or of some of their arrays or images.

    It is empty where the inputs cannot be told apart without decoding them.
    """
    held = table.inputs.items if isinstance(table.inputs, View) else table.inputs
    if not (isinstance(held, list | tuple) or hasattr(held, "__array__")):
        return ""
    digest = hashlib.sha256(str((summary(table) or {})["sha256"]).encode())
    for row in spread_rows(len(table)):
        item = table.inputs[row]
        if hasattr(item, "__array__") or hasattr(item, "tobytes"):
            try:
                digest.update(np.ascontiguousarray(item).tobytes())
            except (OSError, TypeError):  # of an image that cannot be decoded, or a tensor that is not in memory
                return ""
        elif not isinstance(item, str | os.PathLike | list | tuple):
            return ""
    return digest.hexdigest()


def summary(table: Table | None) -> dict[str, Any] | None:
    """Return the source and counts of a table, labels that are missing and a leak included, and a digest of its names and targets."""
    if table is None:
        return None
    digest = hashlib.sha256()
    if table.targets is not None:
        digest.update(np.ascontiguousarray(flat_targets(np.asarray(table.targets))).tobytes())
    names = table.inputs if isinstance(table.inputs, list | tuple) else []
    # The last two parts of a path only, as the data folder may move before a run is resumed.
    for name in names:
        if table.reads in TEXTUAL:
            digest.update(repr(name).encode())
        else:
            digest.update("/".join(Path(name).parts[-2:]).encode() if isinstance(name, str | os.PathLike) else b"?")
    missing = table.missing()
    record = {"source": table.source, "samples": len(table), "classes": table.counts(), "sha256": digest.hexdigest()}
    return record | ({"missing_labels": missing} if missing else {}) | ({"leak": dict(table.leak)} if table.leak else {})
