"""Sources in memory: arrays, lists of paths or images, texts, Hugging Face datasets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.images.decode import check_range
from zoo.data.label_cells import indicators, labels_of_columns, named
from zoo.data.raw import Raw, ReadOptions, join
from zoo.data.sources.input_checks import refuse_nul, refuse_swapped, refuse_unordered
from zoo.data.sources.other_libraries import remedy_of_items
from zoo.data.sources.tables.columns import find_columns, usual_columns
from zoo.data.sources.tables.frames import raw_of
from zoo.data.sources.torch_data.items import Items
from zoo.data.texts.text_inputs import refuse_mixed, text_item
from zoo.data.unreadable_input import UnreadableInputsError, unreadable
from zoo.errors import DataError, count, examples

log = logging.getLogger("zoo")


def read_arrays(inputs: Any, labels: Any, source: str = "the data in memory", *, reads: str = "image", channels: int = 3) -> Raw:
    """Read arrays or lists: images, and labels or None.

    Args:
        inputs: uint8, or float in [0, 1], of shape ``(samples, height, width)`` or ``(samples, height, width,
            channels)``; or a list of paths, PIL images, arrays or tensors.
        labels: One per sample, or None.
        source: For messages.
        reads: ``image``, or ``volume`` for arrays ``(samples, [channels,] depth, height, width)`` of any number type.
        channels: Channels of the images that the model takes; other than 1 or 3: see ``zoo.data.images.bands``.

    Raises:
        DataError: If shapes, type or range are wrong, or the lengths differ.
    """
    refuse_unordered(inputs, "inputs", source)
    refuse_unordered(labels, "labels", source)
    if hasattr(inputs, "__array__") and not hasattr(inputs, "numpy"):
        inputs = np.asarray(inputs)
        if inputs.dtype.kind in "OU":  # a column of paths or images
            inputs = inputs.tolist()
        elif reads == "volume":
            if inputs.ndim not in (4, 5):
                wanted = "(samples, depth, height, width), or with channels after the samples; put one volume into a list"
                raise DataError(f"{source}: shape {inputs.shape} is not {wanted}")
        else:
            check_pixels(inputs, source, channels)
    elif isinstance(inputs, Sequence):
        inputs = [str(item) if isinstance(item, Path) else item for item in inputs]
    if not len(inputs):
        raise DataError(f"{source}: there are no samples")
    if isinstance(inputs, list):
        refuse_nul(inputs, source)
    if labels is not None and len(labels):
        refuse_swapped(inputs[0], labels[0] if isinstance(labels, Sequence | np.ndarray) else None, source)
    if labels is not None and len(labels) != len(inputs):
        raise DataError(f"{source}: {count(len(inputs), 'input')}, but {count(len(labels), 'label')}; give one label per input")
    return Raw(inputs, None if labels is None else label_list(labels), source=source)


def label_list(labels: Any) -> list[Any]:
    """Return labels as a list; those of a DataFrame of several columns stay with the names of its columns."""
    if hasattr(labels, "columns") and hasattr(labels, "iloc") and len(labels.columns) == 1:
        labels = labels.iloc[:, 0]
    if hasattr(labels, "columns") and hasattr(labels, "iloc"):
        return list(indicators({str(name): labels.iloc[:, index].tolist() for index, name in enumerate(labels.columns)}, "the labels"))
    if getattr(getattr(labels, "dtype", None), "kind", "") in ("M", "m"):  # tolist would give nanoseconds
        return list(np.asarray(labels))
    return list(labels.tolist()) if hasattr(labels, "tolist") else list(labels)


def check_pixels(images: Any, source: str, channels: int = 3) -> None:
    """Check that an array is a stack of images with a defined range.

    Raises:
        DataError: With the remedy.
    """
    shape = images.shape
    if channels not in (1, 3):
        if images.ndim != 4 or channels not in (shape[1], shape[3]):
            wanted = f"(samples, height, width, {channels} channels)"
            raise DataError(f"{source}: shape {shape} is not {wanted}, which the model takes; adapt(…, in_chans=N) takes another number")
        return  # the range depends on the window
    if images.ndim == 3 and shape[-1] in (1, 3, 4) and shape[0] > 4:
        raise DataError(f"{source}: shape {shape} looks like one image; wrap it in a list, or give (samples, height, width)")
    if images.ndim == 4 and shape[1] in (1, 3) and shape[-1] not in (1, 3, 4):
        raise DataError(f"{source}: shape {shape} has channels before the rows; pass X.transpose(0, 2, 3, 1)")
    if images.ndim not in (3, 4) or (images.ndim == 4 and shape[-1] not in (1, 3, 4)):
        wanted = "(samples, height, width) or (samples, height, width, 1, 3 or 4 channels)"
        hint = f"; for {shape[-1]} channels build the model with adapt(…, in_chans={shape[-1]})" if images.ndim == 4 else ""
        if images.ndim == 4 and len(set(shape[1:])) == 1:
            hint += "; if these are volumes, take a backbone that reads them: zoo list --modality volume"
        raise DataError(f"{source}: shape {shape} is not {wanted}{hint}")
    check_range(images, source)


def read_texts(inputs: Any, labels: Any, options: ReadOptions, source: str = "the data in memory") -> Raw:
    """Read texts, pairs of texts or lists of words, and labels or None.

    Raises:
        UnreadableInputsError: If an input is none of these or empty, unless it keeps its row as ``Unreadable``.
        DataError: If the lengths differ.
    """
    refuse_unordered(inputs, "inputs", source)
    refuse_unordered(labels, "labels", source)
    items, of_words = list(inputs.tolist() if hasattr(inputs, "tolist") else inputs), options.reads == "words"
    if not items:
        raise DataError(f"{source}: there are no samples")
    items = [text_item(item, of_words=of_words) for item in items]
    refused = unreadable(items)
    if refused and not options.keep_unreadable:
        named = examples([f"row {row} ({reason})" for row, reason in refused.items()])
        kind = "a text or a list of words" if of_words else "a text or a pair of texts"
        remedy = remedy_of_items(inputs) if all(isinstance(item, Mapping) for item in inputs) else "remove them"
        wrong = f"{source}: {count(len(refused), 'input')} of {len(items)} cannot be read as {kind}: {named}"
        raise UnreadableInputsError(f"{wrong}; {remedy}")
    if options.labelled is not False and not of_words:
        refuse_mixed(items, source)
    if labels is not None and len(labels) != len(items):
        raise DataError(f"{source}: {count(len(items), 'input')}, but {count(len(labels), 'label')}; give one label per input")
    return Raw(items, None if labels is None else label_list(labels), source=source)


def read_hub(dataset: Any, options: ReadOptions) -> Raw:
    """Read a ``datasets.Dataset`` with the class names of a ClassLabel column; images stay encoded."""
    source = "the datasets.Dataset"
    if not len(dataset):
        raise DataError(f"{source} has no rows")
    if dataset.format["type"] == "custom":
        raise DataError(f"{source} has a transform (set_transform), which is not run; give dataset.with_format(None), and fit(augment=…)")
    dataset = dataset.with_format(None)  # tensors of with_format("torch") have lost the types of their columns

    def cells(name: str, first: int | None = None) -> list[Any]:
        return list(dataset.select_columns(name)[:first][name])

    found = find_columns(dataset.column_names, _with_images(dataset, options, source), source, cells)
    pixels = found.get("file_name")
    if pixels is not None and _is_text(dataset.features[pixels]):
        pixels = None  # names of files, which are looked for
    values: dict[str, list[Any]] = {role: cells(name) for role, name in found.items() if role != "file_name" or pixels is None}
    if options.label_columns and options.labelled is not False:
        declared = {name: getattr(dataset.features[name], "names", None) or () for name in options.label_columns}
        values["label"] = labels_of_columns({name: cells(name) for name in options.label_columns}, options, source, declared)
    feature = dataset.features[found["label"]] if "label" in found else None
    feature = getattr(feature, "feature", feature)  # the element type of a list of labels, one per word
    classes = tuple(getattr(feature, "names", None) or ())  # of a ClassLabel
    if classes:
        values["label"] = [named(label, classes) for label in values["label"]]
    inputs = None if pixels is None else Items(_encoded(dataset.select_columns(pixels), pixels), pixels)
    raw = raw_of(values, found, options, source, inputs=inputs)
    return replace(raw, classes=classes) if classes else raw


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", "") in ("string", "large_string")


def _with_images(dataset: Any, options: ReadOptions, source: str) -> ReadOptions:
    """Return options that name a column of images, where one of names of files would be taken before it."""
    from datasets import Image  # type: ignore[import-untyped]  # ships no types

    found = [] if options.textual or "file_name" in options.columns else usual_columns("file_name", dataset.column_names)
    images = [name for name in found if isinstance(dataset.features[name], Image)]
    if not images or found[0] == images[0] or not _is_text(dataset.features[found[0]]):
        return options
    line = "%s: column %r has the images, and is taken before the names in %r; columns={'file_name': …} names another"
    log.info(line, source, images[0], found[0])
    return replace(options, columns={**options.columns, "file_name": images[0]})


def _encoded(dataset: Any, column: str) -> Any:
    """Return a column with its images as bytes, to decode them at a reduced size and name the sample in errors, and with its arrays."""
    from datasets import Image

    feature = dataset.features[column]
    if isinstance(feature, Image):
        return dataset.cast_column(column, Image(decode=False))
    # As Python lists the pixels of an array would be integers of 64 bits.
    return dataset.with_format("numpy", dtype=feature.dtype) if type(feature).__name__ in ("Array2D", "Array3D", "Array4D") else dataset


def read_hub_dict(parts: Mapping[str, Any], options: ReadOptions) -> Raw:
    """Read a ``datasets.DatasetDict``: its keys are the splits."""
    return join([read_hub(part, options).with_split(name) for name, part in parts.items()], "the datasets.DatasetDict")
