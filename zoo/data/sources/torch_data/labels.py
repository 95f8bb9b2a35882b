"""Targets of torch datasets, and the names of their classes."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from zoo.data.raw import Raw
from zoo.data.sources.torch_data.items import fetch, of_each, plain, torch_class
from zoo.data.table import spread_rows
from zoo.errors import examples

log = logging.getLogger("zoo")


def labelled(dataset: Any, raw: Raw, key: Any = None) -> Raw:
    """Return rows with the names of a dataset's ``classes`` instead of their indices; ``key`` is that of the label in dicts."""
    classes, labels = _class_names(dataset, key), raw.labels or ()
    if classes and all(type(label) is int and 0 <= label < len(classes) for label in labels):
        return replace(raw, labels=[classes[label] for label in labels], classes=classes)
    return raw


def _class_names(dataset: Any, key: Any = None) -> tuple[str, ...] | None:
    """Return the names of classes that a dataset, or the one below a ``Subset`` or a ``ConcatDataset``, has."""
    if isinstance(dataset, torch_class("Subset")):
        return _class_names(dataset.dataset, key)
    if isinstance(dataset, torch_class("ConcatDataset")):
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


def targets_of(dataset: Any, source: str, *, skip: bool) -> tuple[list[Any], frozenset[int]]:
    """Return the targets that a dataset delivers, and the items that cannot be read.

    Those that it stores where some items agree with them, as reading items is slow.
    """
    stored = _stored_targets(dataset)
    if stored is not None and _agrees(dataset, stored, source):
        return stored, frozenset()
    return of_each(dataset, lambda index: plain(fetch(dataset, index, (1,))), skip=skip)


def _agrees(dataset: Any, stored: Sequence[Any], source: str) -> bool:
    """Return whether items spread over a dataset have the targets that it stores."""
    for row in spread_rows(len(dataset)):
        with suppress(Exception):  # a damaged item is reported, or left out, when the sample is used
            delivered = plain(dataset[row][1])
            if delivered != stored[row] and repr(delivered) != repr(stored[row]):  # NaN differs from itself
                line = "%s: item %d has the target %s and its attribute says %s; the targets of the items are used"
                log.warning(line, source, row, examples([delivered]), examples([stored[row]]))
                return False
    return True


def _stored_targets(dataset: Any) -> list[Any] | None:
    """Return the targets that a dataset has as an attribute, or None."""
    if isinstance(dataset, torch_class("Subset")):
        targets = _stored_targets(dataset.dataset)
        return None if targets is None else [targets[index] for index in dataset.indices]
    if isinstance(dataset, torch_class("TensorDataset")):
        return list(dataset.tensors[1].tolist()) if len(dataset.tensors) > 1 else None
    stored = plain(getattr(dataset, "targets", None))
    # With a target_transform, which only __getitem__ applies, `targets` would be wrong.
    if not isinstance(stored, list | tuple) or len(stored) != len(dataset) or getattr(dataset, "target_transform", None) is not None:
        return None
    return list(map(plain, stored))
