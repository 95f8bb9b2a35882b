"""torch datasets: items that are tuples or dicts, fetched one by one."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from zoo.data.label_cells import labels_of_columns
from zoo.data.raw import Raw, ReadOptions
from zoo.data.sources.input_checks import refuse_swapped
from zoo.data.sources.tables.columns import USUAL, usual_columns
from zoo.data.sources.tables.frames import raw_of
from zoo.data.sources.torch_data.items import Items, fetch, of_each, plain, torch_class
from zoo.data.sources.torch_data.labels import labelled, targets_of
from zoo.errors import LISTED, CorruptInputError, DataError, OptionError, check_options, did_you_mean, examples

log = logging.getLogger("zoo")

_ANY_INPUT = ("input", "inputs", "x")
_PIXELS = ("image", "img", "pixel_values", *_ANY_INPUT)
# Usual keys of an input in dicts, by what the model reads.
_INPUT_KEYS = {
    "image": _PIXELS,
    "volume": ("volume", *_PIXELS),
    "text": (*USUAL["text"], *_ANY_INPUT),
    "words": (*USUAL["words"], "text", "sentence", *_ANY_INPUT),
}
# Names of an input in columns=; for texts the same as those of tables.
_INPUT_ROLES = {"image": ("file_name", "image"), "volume": ("file_name", "volume", "image"), "text": ("text",), "words": ("words",)}
_KEYS = {
    "label": ("label", "labels", "target", "targets", "y"),
    "group": USUAL["group"],
    "split": USUAL["split"],
}
_TRIED = 100  # items, to find one that can be read


def read_torch(dataset: Any, options: ReadOptions) -> Raw:
    """Read a torch dataset of ``(input, target)``, of dicts with such keys, or the dataset of a ``DataLoader``.

    If the dataset has its targets as an attribute, few inputs are decoded, to see that its items have the same. Further elements of a
    tuple are ignored. The keys of dicts are found by their usual names, or named by ``options.columns``.

    Raises:
        DataError: If it has no length, its items have no input, or a loader has its own sampler or collate function.
        OptionError: If keys are named, and the items are not dicts.
    """
    source = f"the dataset {type(dataset).__name__}"
    iterable = isinstance(dataset, torch_class("IterableDataset"))  # it has a __getitem__, which raises
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


def _read_items(dataset: Any, options: ReadOptions, source: str) -> Raw:
    first = _first(dataset)
    if isinstance(first, Mapping):
        return _read_dicts(dataset, first, options, source)
    if options.named:
        raise OptionError(f"{options.named} needs items that are dicts, and those of {source} are {type(first).__name__}s")
    if not isinstance(first, tuple | list) or len(first) < 2:
        return Raw(Items(dataset) if not isinstance(first, tuple | list) else Items(dataset, 0), None, source=source)
    refuse_swapped(first[0], first[1], source)
    targets, broken = targets_of(dataset, source, skip=options.skip_broken)
    return labelled(dataset, Raw(Items(dataset, 0, broken), targets, source=source))


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
        values["label"] = labels_of_columns({name: columns[name] for name in options.label_columns}, options, source)
    inputs: Any = Items(dataset, keys["input"], broken) if lazy else None
    if options.textual:  # not turned into text, so that other things are refused
        inputs = list(zip(values["text"], values["text_pair"], strict=True)) if "text_pair" in values else values[options.reads]
    raw = raw_of(values, chosen, options, source, inputs=inputs)
    return raw if "label" not in chosen else labelled(dataset, raw, chosen["label"])


def _columns(dataset: Any, keys: Sequence[Any], *, skip: bool) -> tuple[dict[Any, list[Any]], frozenset[int]]:
    """Return the values of keys of all items, and the items that cannot be read."""

    def values_of(index: int) -> list[Any]:
        item = fetch(dataset, index)
        absent = [repr(key) for key in keys if not isinstance(item, Mapping) or key not in item]
        if absent:
            raise DataError(f"item {index} of the dataset {type(dataset).__name__} has no {examples(absent)}, which its first item has")
        return [plain(item[key]) for key in keys]

    rows, broken = of_each(dataset, values_of, skip=skip) if keys else ([], frozenset())
    return {key: [row[place] for row in rows] for place, key in enumerate(keys)}, broken


def find_keys(first: Mapping[Any, Any], options: ReadOptions, source: str) -> dict[str, Any]:
    """Return the key of each role in items that are dicts: ``input``, and those that they have of the others.

    Raises:
        DataError: If a required or a named key is missing, each with the nearest one.
    """
    inputs, usual = _INPUT_ROLES[options.reads], {"input": _INPUT_KEYS[options.reads], **_KEYS}
    if options.reads == "text":
        usual["text_pair"] = USUAL["text_pair"]
    check_options(options.columns, [*inputs, *(role for role in usual if role != "input")], "columns=")
    names = [str(key) for key in first]
    by_name = {str(key): key for key in first}  # keys that are numbers are named by their digits
    own = {"input" if role in inputs else role: by_name.get(name, name) for role, name in options.columns.items()}
    found = {role: own[role] if role in own else next(iter(usual_columns(role, list(first), keys)), None) for role, keys in usual.items()}
    absent = [f"{name!r}{did_you_mean(str(name), names)}" for name in (*own.values(), *options.label_columns) if name not in first]
    if absent:
        raise DataError(f"the items of {source} have no key {examples(absent)}; their keys: {examples(list(map(repr, first)), LISTED)}")
    if found["input"] is None:
        there = examples(list(map(repr, first)), LISTED)
        raise DataError(
            f"the items of {source} are dicts with the keys {there}; one of {', '.join(usual['input'])} is read as "
            f"the input, and columns={{{inputs[0]!r}: …}} names another"
        )
    if options.labelled is False or options.label_columns:
        found["label"] = None
    if options.header_group:
        found["group"] = by_name.get(options.header_group)
    if found["group"] not in (None, "group", own.get("group"), options.header_group):
        if options.labelled is False:
            found["group"] = None
        else:
            log.info(
                "%s: key %r is taken as the group column; groups stay on one side of a split; "
                "columns={'group': …} names another, 'none' takes none",
                source,
                found["group"],
            )
    return {role: key for role, key in found.items() if key is not None}
