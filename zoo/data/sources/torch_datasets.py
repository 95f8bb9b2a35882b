"""torch datasets: items that are tuples or dicts, fetched one by one."""

from __future__ import annotations

import bisect
import logging
import os
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from zoo.data.label_cells import indicators
from zoo.data.raw import Raw, ReadOptions
from zoo.data.sources import frames
from zoo.data.sources.input_checks import refuse_swapped
from zoo.data.table import spread_rows
from zoo.errors import CorruptInputError, DataError, OptionError, ZooError, check_options, did_you_mean, examples

log = logging.getLogger("zoo")

_ANY_INPUT = ("input", "inputs", "x")
_PIXELS = ("image", "img", "pixel_values", *_ANY_INPUT)
# Usual keys of an input in dicts, by what the model reads.
_INPUT_KEYS = {
    "image": _PIXELS,
    "volume": ("volume", *_PIXELS),
    "text": (*frames.USUAL["text"], *_ANY_INPUT),
    "words": (*frames.USUAL["words"], "text", "sentence", *_ANY_INPUT),
}
# Names of an input in columns=; for texts the same as those of tables.
_INPUT_ROLES = {"image": ("file_name", "image"), "volume": ("file_name", "volume", "image"), "text": ("text",), "words": ("words",)}
_KEYS = {
    "label": ("label", "labels", "target", "targets", "y"),
    "group": frames.USUAL["group"],
    "split": frames.USUAL["split"],
}
_WHOLE = object()
_TRIED = 100  # items, to find one that can be read


class Items(Sequence[Any]):
    """One element of each item of a dataset: position 0 of its tuples, or a key of its dicts; without ``part`` the item itself."""

    def __init__(self, dataset: Any, part: Any = _WHOLE, broken: frozenset[int] = frozenset()) -> None:
        self.dataset, self.part = dataset, part
        self.broken = broken  # items that could not be read once, and have no label
        self.whole = part is _WHOLE  # survives pickling, which _WHOLE does not

    def of(self, dataset: Any) -> Items:
        """Return the same element of the items of another dataset."""
        return Items(dataset) if self.whole else Items(dataset, self.part)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        """Return one element.

        Raises:
            CorruptInputError: If the dataset raises or has None there, with the index and the error.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # ends an iteration
        if index in self.broken:
            raise _is_none(self.dataset, index)
        found = fetch(self.dataset, int(index), (self.part,) if not self.whole else ())
        if found is None:
            raise _is_none(self.dataset, index)
        return found


def _is_none(dataset: Any, index: int) -> CorruptInputError:
    remedy = "on_corrupt='skip' leaves out such images in training, and a Subset of the others does everywhere"
    return CorruptInputError(f"item {index} of the dataset {type(dataset).__name__} is None or cannot be read; {remedy}")


def fetch(dataset: Any, index: int, parts: Sequence[Any] = ()) -> Any:
    """Return an item of a dataset, or the part of it that a path of keys and positions leads to.

    Raises:
        CorruptInputError: If the dataset raises or its item is None, or the part is missing.
    """
    try:
        found = dataset[index]
        if found is None:
            raise _is_none(dataset, index)
        for part in parts:
            found = found[part]
        return found
    except ZooError:
        raise
    except Exception as error:  # a dataset of the user's own may raise anything
        name = type(dataset).__name__
        raise CorruptInputError(f"item {index} of the dataset {name} cannot be read: {type(error).__name__}: {error}") from error


def below_wrapper(dataset: Any, index: int) -> tuple[Any, int] | None:
    """Return the dataset below a ``Subset`` or a ``ConcatDataset``, and the index there; None for other datasets."""
    if type(dataset) is _torch_class("Subset"):
        return dataset.dataset, int(dataset.indices[index])
    if type(dataset) is _torch_class("ConcatDataset"):
        part = bisect.bisect_right(dataset.cumulative_sizes, index)
        return dataset.datasets[part], index - (dataset.cumulative_sizes[part - 1] if part else 0)
    return None


def column_of_tensors(items: Items) -> Any:
    """Return the tensor that a column of a ``TensorDataset`` is; None for other datasets."""
    known = type(items.dataset) is _torch_class("TensorDataset") and not items.whole
    return items.dataset.tensors[items.part] if known else None


def read_torch(dataset: Any, options: ReadOptions) -> Raw:
    """Read a torch dataset of ``(input, target)``, of dicts with such keys, or the dataset of a ``DataLoader``.

    If the dataset has its targets as an attribute, few inputs are decoded, to see that its items have the same. Further elements of a
    tuple are ignored. The keys of dicts are found by their usual names, or named by ``options.columns``.

    Raises:
        DataError: If it has no length, its items have no input, or a loader has its own sampler or collate function.
        OptionError: If keys are named, and the items are not dicts.
    """
    source = f"the dataset {type(dataset).__name__}"
    iterable = isinstance(dataset, _torch_class("IterableDataset"))  # it has a __getitem__, which raises
    if iterable or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"{source} has no length or cannot be indexed; give a map-style dataset with __len__ and __getitem__, "
            "or its samples as (inputs, labels)"
        )
    size = _length(dataset, source)
    if not size:
        raise DataError(f"{source} has no samples")
    raw = _read_items(dataset, options, source)
    again = _length(dataset, source)
    if again != size or len(raw.labels or range(size)) != size:
        raise DataError(f"{source} had {size} samples at first and then {again}; its length must stay the same")
    return raw


def _length(dataset: Any, source: str) -> int:
    try:
        return len(dataset)
    except Exception as error:  # a dataset of the user's own may raise anything
        raise DataError(
            f"{source} does not tell its length: {type(error).__name__}: {error}; its __len__ must return a whole number"
        ) from error


def _first(dataset: Any) -> Any:
    """Return the first item that can be read.

    Raises:
        CorruptInputError: If none of the first ones can.
    """
    for index in range(min(len(dataset), _TRIED) - 1):
        with suppress(CorruptInputError):
            return fetch(dataset, index)
    return fetch(dataset, min(len(dataset), _TRIED) - 1)


def _of_each(dataset: Any, get: Callable[[int], Any], *, skip: bool) -> tuple[list[Any], frozenset[int]]:
    """Return a value for each item, and the items that cannot be read: these have the value of another one, and are left out later.

    Raises:
        CorruptInputError: If one cannot be read, unless ``skip``.
    """
    values, broken = list[Any](), set[int]()
    for index in range(len(dataset)):
        try:
            values.append(get(index))
        except CorruptInputError:
            if not skip:
                raise
            values.append(None)
            broken.add(index)
    other = next((value for index, value in enumerate(values) if index not in broken), None)
    return [other if index in broken else value for index, value in enumerate(values)], frozenset(broken)


def _read_items(dataset: Any, options: ReadOptions, source: str) -> Raw:
    first = _first(dataset)
    if isinstance(first, Mapping):
        return _read_dicts(dataset, first, options, source)
    if options.named:
        raise OptionError(f"{options.named} needs items that are dicts, and those of {source} are {type(first).__name__}s")
    if not isinstance(first, tuple | list) or len(first) < 2:
        return Raw(Items(dataset) if not isinstance(first, tuple | list) else Items(dataset, 0), None, source=source)
    refuse_swapped(first[0], first[1], source)
    targets, broken = _targets(dataset, source, skip=options.skip_broken)
    return _labelled(dataset, Raw(Items(dataset, 0, broken), targets, source=source))


def _read_dicts(dataset: Any, first: Mapping[Any, Any], options: ReadOptions, source: str) -> Raw:
    keys = find_keys(first, options, source)
    lazy = not options.textual and not isinstance(first[keys["input"]], str | os.PathLike)
    roles = {"input": options.reads if options.textual else "file_name"}
    chosen = {roles.get(role, role): key for role, key in keys.items() if not (lazy and role == "input")}
    # One pass over the items, as each decodes its input.
    wanted = list(dict.fromkeys((*chosen.values(), *options.label_columns)))
    columns, broken = _columns(dataset, wanted, skip=options.skip_broken and lazy)
    values = {role: columns[key] for role, key in chosen.items()}
    if options.label_columns and options.labelled is not False:
        values["label"] = indicators({name: columns[name] for name in options.label_columns}, source)
    inputs: Any = Items(dataset, keys["input"], broken) if lazy else None
    if options.textual:  # not turned into text, so that other things are refused
        inputs = list(zip(values["text"], values["text_pair"], strict=True)) if "text_pair" in values else values[options.reads]
    raw = frames.raw_of(values, chosen, options, source, inputs=inputs)
    return raw if "label" not in chosen else _labelled(dataset, raw, chosen["label"])


def _columns(dataset: Any, keys: Sequence[Any], *, skip: bool) -> tuple[dict[Any, list[Any]], frozenset[int]]:
    """Return the values of keys of all items, and the items that cannot be read."""

    def values_of(index: int) -> list[Any]:
        item = fetch(dataset, index)
        absent = [repr(key) for key in keys if not isinstance(item, Mapping) or key not in item]
        if absent:
            raise DataError(f"item {index} of the dataset {type(dataset).__name__} has no {', '.join(absent)}, which its first item has")
        return [_plain(item[key]) for key in keys]

    rows, broken = _of_each(dataset, values_of, skip=skip) if keys else ([], frozenset())
    return {key: [row[place] for row in rows] for place, key in enumerate(keys)}, broken


def find_keys(first: Mapping[Any, Any], options: ReadOptions, source: str) -> dict[str, Any]:
    """Return the key of each role in items that are dicts: ``input``, and those that they have of the others.

    Raises:
        DataError: If a required or a named key is missing, each with the nearest one.
    """
    inputs, usual = _INPUT_ROLES[options.reads], {"input": _INPUT_KEYS[options.reads], **_KEYS}
    if options.reads == "text":
        usual["text_pair"] = frames.USUAL["text_pair"]
    check_options(options.columns, [*inputs, *(role for role in usual if role != "input")], "columns=")
    names = [str(key) for key in first]
    by_name = {str(key): key for key in first}  # keys that are numbers are named by their digits
    own = {"input" if role in inputs else role: by_name.get(name, name) for role, name in options.columns.items()}
    found = {
        role: own[role] if role in own else next(iter(frames.usual_columns(role, list(first), keys)), None) for role, keys in usual.items()
    }
    absent = [f"{name!r}{did_you_mean(str(name), names)}" for name in (*own.values(), *options.label_columns) if name not in first]
    if absent:
        raise DataError(f"the items of {source} have no key {examples(absent)}; their keys: {', '.join(map(repr, first))}")
    if found["input"] is None:
        raise DataError(
            f"the items of {source} are dicts with the keys {', '.join(map(repr, first))}; one of {', '.join(usual['input'])} is read as "
            f"the input, and columns={{{inputs[0]!r}: …}} names another"
        )
    if options.labelled is False or options.label_columns:
        found["label"] = None
    if found["group"] not in (None, "group", own.get("group")):
        if options.labelled is False:
            found["group"] = None
        else:
            log.info(
                "%s: key %r is taken as the group column; groups stay on one side of a split; columns={'group': …} names another",
                source,
                found["group"],
            )
    return {role: key for role, key in found.items() if key is not None}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _labelled(dataset: Any, raw: Raw, key: Any = None) -> Raw:
    """Return rows with the names of a dataset's ``classes`` instead of their indices; ``key`` is that of the label in dicts."""
    classes, labels = _class_names(dataset, key), raw.labels or ()
    if classes and all(type(label) is int and 0 <= label < len(classes) for label in labels):
        return replace(raw, labels=[classes[label] for label in labels], classes=classes)
    return raw


def _class_names(dataset: Any, key: Any = None) -> tuple[str, ...] | None:
    """Return the names of classes that a dataset, or the one below a ``Subset`` or a ``ConcatDataset``, has."""
    if isinstance(dataset, _torch_class("Subset")):
        return _class_names(dataset.dataset, key)
    if isinstance(dataset, _torch_class("ConcatDataset")):
        found = {_class_names(part, key) for part in dataset.datasets}
        return found.pop() if len(found) == 1 else None
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple) or not names:
        names = _names_by_index(getattr(dataset, "class_to_idx", None)) or _feature_names(dataset, key)
    return tuple(unicodedata.normalize("NFC", str(name)) for name in names) if names else None


def _names_by_index(numbers: Any) -> list[Any]:
    """Return the names of a ``class_to_idx`` in the order of its indices."""
    if not isinstance(numbers, Mapping) or sorted(numbers.values(), key=str) != sorted(range(len(numbers)), key=str):
        return []
    return sorted(numbers, key=lambda name: int(numbers[name]))


def _feature_names(dataset: Any, key: Any) -> list[str]:
    """Return the names of a ClassLabel column of a Hub dataset."""
    features = getattr(dataset, "features", None)
    names = getattr(features.get(key), "names", None) if isinstance(features, Mapping) else None
    return list(names) if isinstance(names, list | tuple) else []


def _targets(dataset: Any, source: str, *, skip: bool) -> tuple[list[Any], frozenset[int]]:
    """Return the targets that a dataset delivers, and the items that cannot be read.

    Those that it stores where some items agree with them, as reading items is slow.
    """
    stored = _stored_targets(dataset)
    if stored is not None and _agrees(dataset, stored, source):
        return stored, frozenset()
    return _of_each(dataset, lambda index: _plain(fetch(dataset, index, (1,))), skip=skip)


def _agrees(dataset: Any, stored: Sequence[Any], source: str) -> bool:
    """Return whether items spread over a dataset have the targets that it stores."""
    for row in spread_rows(len(dataset)):
        with suppress(Exception):  # a damaged item is reported, or left out, when the sample is used
            delivered = _plain(dataset[row][1])
            if delivered != stored[row] and repr(delivered) != repr(stored[row]):  # NaN differs from itself
                line = "%s: item %d has the target %s and its attribute says %s; the targets of the items are used"
                log.warning(line, source, row, examples([delivered]), examples([stored[row]]))
                return False
    return True


def _stored_targets(dataset: Any) -> list[Any] | None:
    """Return the targets that a dataset has as an attribute, or None."""
    if isinstance(dataset, _torch_class("Subset")):
        targets = _stored_targets(dataset.dataset)
        return None if targets is None else [targets[index] for index in dataset.indices]
    if isinstance(dataset, _torch_class("TensorDataset")):
        return list(dataset.tensors[1].tolist()) if len(dataset.tensors) > 1 else None
    stored = _plain(getattr(dataset, "targets", None))
    # With a target_transform, which only __getitem__ applies, `targets` would be wrong.
    if not isinstance(stored, list | tuple) or len(stored) != len(dataset) or getattr(dataset, "target_transform", None) is not None:
        return None
    return list(map(_plain, stored))


def _torch_class(name: str) -> Any:
    """Return a class of ``torch.utils.data``, or one of which nothing is an instance if torch is not imported."""
    return getattr(sys.modules.get("torch.utils.data"), name, ())
