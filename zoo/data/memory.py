"""Sources in memory: arrays, lists of paths or images, torch datasets, Hugging Face datasets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.frames import find_columns, raw_of
from zoo.data.raw import Raw, ReadOptions, join
from zoo.errors import DataError, count, examples

log = logging.getLogger(__name__)


class Items(Sequence[Any]):
    """One element of each item of a dataset: position 0 of its tuples, or a key of its dicts."""

    def __init__(self, dataset: Any, part: Any) -> None:
        self.dataset, self.part = dataset, part

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.dataset[int(index)][self.part]


def read_arrays(inputs: Any, labels: Any, source: str = "the arrays", *, reads: str = "image") -> Raw:
    """Read arrays or lists: images, and labels or None.

    Args:
        inputs: uint8, or float in [0, 1], of shape ``(samples, height, width)`` or ``(samples, height, width,
            channels)``; or a list of paths, PIL images, arrays or tensors.
        labels: One per sample, or None.
        source: For messages.
        reads: ``image``, or ``volume`` for arrays ``(samples, [channels,] depth, height, width)`` of any number type.

    Raises:
        DataError: If shapes, type or range are wrong, or the lengths differ.
    """
    if hasattr(inputs, "__array__") and not hasattr(inputs, "numpy"):
        inputs = np.asarray(inputs)
        if inputs.dtype.kind in "OU":  # a column of paths or images
            inputs = inputs.tolist()
        elif reads == "volume":
            if inputs.ndim not in (4, 5):
                wanted = "(samples, depth, height, width), or with channels after the samples; put one volume into a list"
                raise DataError(f"{source}: shape {inputs.shape} is not {wanted}")
        else:
            check_pixels(inputs, source)
    elif isinstance(inputs, Sequence):
        inputs = [str(item) if isinstance(item, Path) else item for item in inputs]
    if not len(inputs):
        raise DataError(f"{source}: there are no samples")
    if labels is not None and len(labels) != len(inputs):
        raise DataError(f"{source}: {count(len(inputs), 'input')}, but {count(len(labels), 'label')}; give one label per input")
    if labels is not None:
        labels = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    return Raw(inputs, labels, source=source)


def check_pixels(images: Any, source: str) -> None:
    """Check that an array is a stack of images with a defined range.

    Raises:
        DataError: With the remedy.
    """
    shape = images.shape
    if images.ndim == 3 and shape[-1] in (1, 3, 4) and shape[0] > 4:
        raise DataError(f"{source}: shape {shape} looks like one image; wrap it in a list, or give (samples, height, width)")
    if images.ndim == 4 and shape[1] in (1, 3) and shape[-1] not in (1, 3, 4):
        raise DataError(f"{source}: shape {shape} has channels before the rows; pass X.transpose(0, 2, 3, 1)")
    if images.ndim not in (3, 4) or (images.ndim == 4 and shape[-1] not in (1, 3, 4)):
        raise DataError(f"{source}: shape {shape} is not (samples, height, width) or (samples, height, width, 1, 3 or 4 channels)")
    check_range(images, source)


def check_range(pixels: Any, source: str) -> None:
    """Check that pixels are uint8 or float in [0, 1]; guessing another range could clip them silently.

    Raises:
        DataError: With the range of the values.
    """
    if pixels.dtype == np.uint8 or not pixels.size:
        return
    if pixels.dtype.kind != "f":
        low, high = pixels.min(), pixels.max()
        raise DataError(f"{source}: pixels are {pixels.dtype} in [{low}, {high}]; scale them to float in [0, 1] or convert them to uint8")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise DataError(
            f"{source}: float pixels are in [{low:g}, {high:g}], expected [0, 1]; for example X = (X - X.min()) / (X.max() - X.min())"
        )


# Usual keys of inputs and targets in datasets of dicts.
INPUT_KEYS = ("image", "img", "pixel_values", "input", "inputs", "x", "text", "sentence", "words", "tokens")
TARGET_KEYS = ("label", "labels", "target", "targets", "y")


def read_torch(dataset: Any) -> Raw:
    """Read a torch dataset of ``(input, target)``, of dicts with such keys, or the dataset of a ``DataLoader``.

    If the dataset has its targets as an attribute, no input is decoded. Further elements of a tuple are ignored.

    Raises:
        DataError: If it has no length, its items have no input, or a loader has its own sampler or collate function.
    """
    dataset = _of_loader(dataset)
    source = f"the dataset {type(dataset).__name__}"
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(f"{source} has no length or cannot be indexed; give a map-style dataset with __len__ and __getitem__")
    if not len(dataset):
        raise DataError(f"{source} has no samples")
    first = dataset[0]
    if isinstance(first, Mapping):
        return _read_dicts(dataset, first, source)
    if not isinstance(first, tuple | list) or len(first) < 2:
        return Raw(dataset if not isinstance(first, tuple | list) else Items(dataset, 0), None, source=source)
    return _labelled(dataset, Items(dataset, 0), _targets(dataset), source)


def _read_dicts(dataset: Any, first: Mapping[Any, Any], source: str) -> Raw:
    keys = ", ".join(map(repr, first))
    found = next((key for key in INPUT_KEYS if key in first), None)
    if found is None:
        raise DataError(f"the items of {source} are dicts with the keys {keys}; one of {', '.join(INPUT_KEYS)} is read as the input")
    target = next((key for key in TARGET_KEYS if key in first), None)
    if target is None:
        return Raw(Items(dataset, found), None, source=source)
    values = [dataset[index][target] for index in range(len(dataset))]
    return _labelled(dataset, Items(dataset, found), [value.tolist() if hasattr(value, "tolist") else value for value in values], source)


def _labelled(dataset: Any, inputs: Items, labels: list[Any], source: str) -> Raw:
    classes = _class_names(dataset)
    if classes and all(type(label) is int and 0 <= label < len(classes) for label in labels):
        return Raw(inputs, [classes[label] for label in labels], classes=classes, source=source)
    return Raw(inputs, labels, source=source)


def _of_loader(data: Any) -> Any:
    """Return the dataset of a torch ``DataLoader``, whose batches, order and workers are replaced by the run's.

    Raises:
        DataError: If its sampler or its collate function changes the samples.
    """
    loaders = sys.modules.get("torch.utils.data")
    if loaders is None or not isinstance(data, loaders.DataLoader):
        return data
    plain = (loaders.SequentialSampler, loaders.RandomSampler)
    own = [] if isinstance(data.sampler, plain) else [f"sampler {type(data.sampler).__name__}"]
    if data.batch_sampler is not None and type(data.batch_sampler) is not loaders.BatchSampler:
        own.append(f"batch sampler {type(data.batch_sampler).__name__}")
    own += [] if data.collate_fn is loaders.default_collate else [f"collate_fn {getattr(data.collate_fn, '__name__', 'of its own')}"]
    if own:
        remedy = "give its dataset, and balanced_sampling=True or a Subset for the sampler"
        raise DataError(f"a DataLoader with the {' and the '.join(own)} is not read, because the run makes the batches; {remedy}")
    log.info("of the DataLoader its dataset is read; batch size, order and workers are those of the run")
    return data.dataset


def _class_names(dataset: Any) -> tuple[str, ...] | None:
    if hasattr(dataset, "dataset") and hasattr(dataset, "indices"):
        return _class_names(dataset.dataset)
    names = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) and names else None


def _targets(dataset: Any) -> list[Any]:
    if hasattr(dataset, "dataset") and hasattr(dataset, "indices"):  # torch.utils.data.Subset
        targets = _targets(dataset.dataset)
        return [targets[index] for index in dataset.indices]
    if hasattr(dataset, "tensors"):  # torch.utils.data.TensorDataset
        return list(dataset.tensors[1].tolist())
    stored = getattr(dataset, "targets", None)
    # With a target_transform, which only __getitem__ applies, `targets` would be wrong.
    if stored is not None and len(stored) == len(dataset) and getattr(dataset, "target_transform", None) is None:
        return list(stored.tolist() if hasattr(stored, "tolist") else stored)
    targets = [dataset[index][1] for index in range(len(dataset))]
    return [target.tolist() if hasattr(target, "tolist") else target for target in targets]


def read_texts(inputs: Any, labels: Any, reads: str, source: str = "the arrays") -> Raw:
    """Read texts, pairs of texts or lists of words, and labels or None.

    Raises:
        DataError: If an input is none of these, or the lengths differ.
    """
    items = inputs.tolist() if hasattr(inputs, "tolist") else list(inputs)
    if reads == "words":
        good = [isinstance(item, str) or (isinstance(item, list | tuple) and all(isinstance(word, str) for word in item)) for item in items]
        items = [item.split() if isinstance(item, str) else item for item in items]
    else:
        items = [tuple(item) if isinstance(item, list) else item for item in items]
        good = [isinstance(item, str) or (isinstance(item, tuple) and list(map(type, item)) == [str, str]) for item in items]
    odd = [f"row {row} ({type(items[row]).__name__})" for row, fine in enumerate(good) if not fine]
    if odd:
        kind = "a text or a list of words" if reads == "words" else "a text or a pair of texts"
        raise DataError(f"{source}: {count(len(odd), 'input')} of {len(items)} are not {kind}: {examples(odd)}")
    if not items:
        raise DataError(f"{source}: there are no samples")
    empty = [f"row {row}" for row, item in enumerate(items) if not (item.strip() if isinstance(item, str) else item)]
    if empty:
        raise DataError(f"{source}: {count(len(empty), 'input')} of {len(items)} hold no text: {examples(empty)}; remove them")
    if labels is not None and len(labels) != len(items):
        raise DataError(f"{source}: {count(len(items), 'input')}, but {count(len(labels), 'label')}; give one label per input")
    return Raw(items, None if labels is None else labels.tolist() if hasattr(labels, "tolist") else list(labels), source=source)


def read_hub(dataset: Any, options: ReadOptions) -> Raw:
    """Read a ``datasets.Dataset`` with the class names of a ClassLabel column; images stay encoded."""
    source = "the datasets.Dataset"
    if not len(dataset):
        raise DataError(f"{source} has no rows")
    if dataset.format["type"] == "custom":
        raise DataError(f"{source} has a transform (set_transform), which is not run; give dataset.with_format(None), and fit(augment=…)")
    dataset = dataset.with_format(None)  # tensors of with_format("torch") have lost the types of their columns
    found = find_columns(dataset.column_names, options, source)
    values: dict[str, list[Any]] = {
        role: list(dataset.select_columns(name)[:][name]) for role, name in found.items() if role != "file_name"
    }
    feature = dataset.features[found["label"]] if "label" in found else None
    feature = getattr(feature, "feature", feature)  # the element type of a list of labels, one per word
    name: Callable[[Any], str] | None = getattr(feature, "int2str", None)
    if name is not None:
        values["label"] = [_named(label, name) for label in values["label"]]
    pixels = found.get("file_name")
    inputs = None if pixels is None else Items(_encoded(dataset.select_columns(pixels), pixels), pixels)
    classes = tuple(feature.names) if name is not None and feature is not None else None
    return replace(raw_of(values, found, options.columns, source, inputs=inputs), classes=classes)


def _named(label: Any, name: Callable[[Any], str]) -> Any:
    if isinstance(label, list):
        return [name(one) for one in label]
    # datasets marks unlabelled rows by -1.
    return None if label is None or label < 0 else name(label)


def _encoded(dataset: Any, column: str) -> Any:
    """Return a column with its images as bytes, to decode them at a reduced size and name the sample in errors."""
    from datasets import Image  # type: ignore[import-untyped]  # ships no types

    return dataset.cast_column(column, Image(decode=False)) if isinstance(dataset.features[column], Image) else dataset


def read_hub_dict(parts: Mapping[str, Any], options: ReadOptions) -> Raw:
    """Read a ``datasets.DatasetDict``: its keys are the splits."""
    return join([read_hub(part, options).with_split(name) for name, part in parts.items()], "the datasets.DatasetDict")
