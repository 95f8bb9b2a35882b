"""torch datasets: items that are tuples or dicts, fetched one by one."""

from __future__ import annotations

import logging
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from zoo.data.raw import Indicators, Raw, ReadOptions
from zoo.data.table import spread_rows
from zoo.errors import CorruptInputError, DataError, OptionError, ZooError, check_options, did_you_mean, examples

log = logging.getLogger(__name__)

# Usual keys of dicts by role, beside those of the inputs.
_INPUT_KEYS = ("image", "img", "pixel_values", "input", "inputs", "x", "text", "sentence", "words", "tokens")
_KEYS = {
    "label": ("label", "labels", "target", "targets", "y"),
    "group": ("group", "patient_id", "patient", "subject_id"),
    "split": ("split",),
}
_INPUT_ROLES = ("file_name", "image", "volume", "text", "words")  # names of the input in columns=
_WHOLE = object()


class Items(Sequence[Any]):
    """One element of each item of a dataset: position 0 of its tuples, or a key of its dicts; without ``part`` the item itself."""

    def __init__(self, dataset: Any, part: Any = _WHOLE) -> None:
        self.dataset, self.part = dataset, part
        self.whole = part is _WHOLE  # survives pickling, which _WHOLE does not

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        """Return one element.

        Raises:
            CorruptInputError: If the dataset raises, with the index and the error.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # ends an iteration
        return fetch(self.dataset, int(index), (self.part,) if not self.whole else ())


def fetch(dataset: Any, index: int, parts: Sequence[Any] = ()) -> Any:
    """Return an item of a dataset, or the part of it that a path of keys and positions leads to.

    Raises:
        CorruptInputError: If the dataset raises, or the part is missing.
    """
    try:
        found = dataset[index]
        for part in parts:
            found = found[part]
        return found
    except ZooError:
        raise
    except Exception as error:  # a dataset of the user's own may raise anything
        name = type(dataset).__name__
        raise CorruptInputError(f"item {index} of the dataset {name} cannot be read: {type(error).__name__}: {error}") from error


def read_torch(dataset: Any, options: ReadOptions) -> Raw:
    """Read a torch dataset of ``(input, target)``, of dicts with such keys, or the dataset of a ``DataLoader``.

    If the dataset has its targets as an attribute, few inputs are decoded, to see that its items have the same. Further elements of a
    tuple are ignored. The keys of dicts are found by their usual names, or named by ``options.columns``.

    Raises:
        DataError: If it has no length, its items have no input, or a loader has its own sampler or collate function.
        OptionError: If keys are named, and the items are no dicts.
    """
    dataset = _of_loader(dataset)
    source = f"the dataset {type(dataset).__name__}"
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(f"{source} has no length or cannot be indexed; give a map-style dataset with __len__ and __getitem__")
    if not len(dataset):
        raise DataError(f"{source} has no samples")
    first = fetch(dataset, 0)
    if isinstance(first, Mapping):
        return _read_dicts(dataset, first, options, source)
    if options.named:
        raise OptionError(f"{options.named} needs items that are dicts, and those of {source} are {type(first).__name__}s")
    if not isinstance(first, tuple | list) or len(first) < 2:
        return Raw(Items(dataset) if not isinstance(first, tuple | list) else Items(dataset, 0), None, source=source)
    return _labelled(dataset, Items(dataset, 0), _targets(dataset, source), source)


def _read_dicts(dataset: Any, first: Mapping[Any, Any], options: ReadOptions, source: str) -> Raw:
    keys = find_keys(first, options, source)
    wanted = [keys[role] for role in ("label", "group", "split") if role in keys] + list(options.label_columns)
    # One pass over the items, as each decodes its input.
    rows = [[row[key] for key in wanted] for row in _rows(dataset, wanted)] if wanted else []
    columns: dict[Any, list[Any]] = {key: [_plain(row[place]) for row in rows] for place, key in enumerate(wanted)}
    groups = [str(value) for value in columns[keys["group"]]] if "group" in keys else None
    splits = [str(value) for value in columns[keys["split"]]] if "split" in keys else None
    inputs = Items(dataset, keys["input"])
    labels: list[Any] | None = columns[keys["label"]] if "label" in keys else None
    if options.label_columns and options.labelled is not False:
        names = options.label_columns
        labels = [Indicators(names, tuple(map(float, values))) for values in zip(*(columns[name] for name in names), strict=True)]
        return Raw(inputs, labels, classes=names, groups=groups, splits=splits, source=source)
    raw = Raw(inputs, None, source=source) if labels is None else _labelled(dataset, inputs, labels, source)
    return Raw(raw.inputs, raw.labels, classes=raw.classes, groups=groups, splits=splits, source=source)


def _rows(dataset: Any, wanted: Sequence[Any]) -> Sequence[Mapping[Any, Any]]:
    rows = []
    for index in range(len(dataset)):
        item = fetch(dataset, index)
        absent = [repr(key) for key in wanted if not isinstance(item, Mapping) or key not in item]
        if absent:
            raise DataError(f"item {index} of the dataset {type(dataset).__name__} has no {', '.join(absent)}, which its first item has")
        rows.append({key: item[key] for key in wanted})
    return rows


def find_keys(first: Mapping[Any, Any], options: ReadOptions, source: str) -> dict[str, Any]:
    """Return the key of each role in items that are dicts: ``input``, and where they have it ``label``, ``group``, ``split``.

    Raises:
        DataError: If a required or a named key is missing, each with the nearest one.
    """
    check_options(options.columns, [*_INPUT_ROLES, *_KEYS], "columns=")
    names = [str(key) for key in first]
    own = {"input" if role in _INPUT_ROLES else role: name for role, name in options.columns.items()}
    usual = {"input": _INPUT_KEYS, **_KEYS}
    found = {role: own[role] if role in own else next((key for key in keys if key in first), None) for role, keys in usual.items()}
    absent = [f"{name!r}{did_you_mean(str(name), names)}" for name in (*own.values(), *options.label_columns) if name not in first]
    if absent:
        raise DataError(f"the items of {source} have no key {examples(absent)}; their keys: {', '.join(map(repr, first))}")
    if found["input"] is None:
        raise DataError(
            f"the items of {source} are dicts with the keys {', '.join(map(repr, first))}; one of {', '.join(_INPUT_KEYS)} is read as the "
            "input, and columns={'file_name': …} names another"
        )
    if options.labelled is False or options.label_columns:
        found["label"] = None
    if found["group"] not in (None, "group", own.get("group")):
        log.info("%s: key %r is taken as the group that no split cuts; columns={'group': …} names another", source, found["group"])
    return {role: key for role, key in found.items() if key is not None}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


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
    return tuple(unicodedata.normalize("NFC", str(name)) for name in names) if isinstance(names, list | tuple) and names else None


def _targets(dataset: Any, source: str) -> list[Any]:
    """Return the targets that a dataset delivers; those that it stores where some items agree with them, as reading items is slow."""
    stored = _stored_targets(dataset)
    if stored is not None and _agrees(dataset, stored, source):
        return stored
    return [_plain(fetch(dataset, index, (1,))) for index in range(len(dataset))]


def _agrees(dataset: Any, stored: Sequence[Any], source: str) -> bool:
    """Return whether items spread over a dataset have the targets that it stores."""
    for row in spread_rows(len(dataset)):
        with suppress(Exception):  # a damaged item is told, or left out, where its input is used
            delivered = _plain(dataset[row][1])
            if delivered != stored[row] and repr(delivered) != repr(stored[row]):  # NaN differs from itself
                line = "%s: item %d has the target %s and its attribute says %s; the targets of the items are used"
                log.warning(line, source, row, delivered, stored[row])
                return False
    return True


def _stored_targets(dataset: Any) -> list[Any] | None:
    """Return the targets that a dataset has as an attribute, or None."""
    if hasattr(dataset, "dataset") and hasattr(dataset, "indices"):  # torch.utils.data.Subset
        targets = _stored_targets(dataset.dataset)
        return None if targets is None else [targets[index] for index in dataset.indices]
    if hasattr(dataset, "tensors"):  # torch.utils.data.TensorDataset
        return list(dataset.tensors[1].tolist())
    stored = getattr(dataset, "targets", None)
    # With a target_transform, which only __getitem__ applies, `targets` would be wrong.
    if stored is None or len(stored) != len(dataset) or getattr(dataset, "target_transform", None) is not None:
        return None
    return list(map(_plain, stored))
