"""Names of classes: how labels become names, their order, and the checks of a set of names."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from zoo.data.table import item_name
from zoo.errors import DataError, count, did_you_mean, examples, fault_list
from zoo.tasks.labels.spelling import one_spelling

INTEGER = re.compile(r"[+-]?\d+")
_MAX_DIGITS = 18  # Python refuses to parse some thousand digits
WRITTEN_LIST = re.compile(r"\[.*\]|\(.*\)|\{.*\}", re.DOTALL)  # a list, tuple or set as text
OTHER_CLASSES = (
    "Correct the labels, leave them out with drop_other_classes=True (--drop-other-classes), or train a model that has these classes: "
    "adapt(labels=…) (zoo train --classes A,B)."
)
SEPARATORS = ("|", ";", ",", "，", "、", "；", "/", "+", "&", ":", "\n", "\t", " and ", " ")


def class_order(names: set[str]) -> tuple[str, ...]:
    """Return class names sorted: as numbers where all are integers of up to 18 digits (``2`` before ``10``), else as text."""
    if all(len(name) <= _MAX_DIGITS and INTEGER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return class names as text in Unicode's composed form (NFC), in which names that look equal are equal.

    Raises:
        DataError: If a name occurs twice or there is none.
    """
    names = tuple(unicodedata.normalize("NFC", str(name)) for name in classes)
    twice = sorted(name for name, number in Counter(names).items() if number > 1)
    if twice or not names:
        raise DataError(f"classes must be distinct names, one or more; {f'twice: {examples(twice)}' if twice else 'none given'}")
    return names


def plain(label: Any) -> Any:
    """Return a label as plain Python data, text stripped and composed (NFC)."""
    if hasattr(label, "tolist"):  # numpy scalars and arrays, torch tensors
        label = label.tolist()
    if isinstance(label, bytes):  # text of HDF5 files, and of numpy's dtype S
        label = label.decode("utf-8", errors="backslashreplace")
    return unicodedata.normalize("NFC", label.strip()) if isinstance(label, str) else label


def name_of(label: Any) -> str:
    """Return the class name that a label is; 7.0 is ``7``."""
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)


def is_number(name: str) -> bool:
    """Return whether a class name is a finite number."""
    try:
        return "_" not in name and math.isfinite(float(name))
    except ValueError:
        return False


def are_indices(labels: Sequence[Any], known: Sequence[str]) -> bool:
    """Return whether in-memory integers are class indices, because the class names are not numbers."""
    if any(INTEGER.fullmatch(name) for name in known):
        return False
    return bool(labels) and all(type(label) is int and 0 <= label < len(known) for label in labels)


def refuse_unknown(labels: Sequence[Sequence[str]], place: Mapping[str, int], inputs: Sequence[Any], source: str) -> None:
    """Check that every name of every sample is a class.

    Raises:
        DataError: Listing those that are none, each with the nearest class.
    """
    rows = defaultdict(list)
    for row, names in enumerate(labels):
        for name in names:
            if name not in place:
                rows[name].append(row)
    if rows:
        alike = {one_spelling(known): known for known in place}
        faults = []
        for name, at in list(rows.items())[:4]:
            meant = _other_spelling(alike.get(one_spelling(name))) or did_you_mean(name, place)
            faults.append(f"{name!r}{meant}: {count(len(at), 'sample')}, first {examples([item_name(inputs, row) for row in at[:2]])}")
        faults += [f"… and {count(len(rows) - 4, 'label')} more"] if len(rows) > 4 else []
        headline = f"{source} has {count(len(rows), 'label')} outside the {len(place)} classes ({examples(list(place), 8)})"
        hint = separator_hint([*place, *rows])
        raise DataError(fault_list(headline, faults, f"{hint[0].upper()}{hint[1:]}. {OTHER_CLASSES}" if hint else OTHER_CLASSES))


def _other_spelling(known: str | None) -> str:
    return f" (the class {known!r} in another spelling? write both alike)" if known else ""


def number_hint(labels: Sequence[str]) -> str:
    """Return a remedy for numbers that a regression cannot read, behind a semicolon."""
    if any(re.fullmatch(r"\s*[+-]?\d+,\d+\s*", label) for label in labels):
        return "; write a point in place of the comma, such as pd.read_csv(path, decimal=',')"
    if any(label.strip().endswith("%") for label in labels):
        return "; write them without the sign %"
    if any(label.startswith("Timedelta(") for label in labels):
        return "; give them in one unit, such as frame[column].dt.total_seconds()"
    return "; correct or remove these rows"


def separator_hint(names: Collection[str]) -> str:
    """Return a sentence about names that are lists, or others joined by a separator, such as ``cat,dog``; empty if there are none."""
    lists = [repr(name) for name in names if WRITTEN_LIST.fullmatch(name)]
    if lists:
        return f"{examples(lists)} {'looks' if len(lists) == 1 else 'look'} like lists of labels, which task='multi-label' reads"
    known = set(names)
    for separator in SEPARATORS:
        joined = [name for name in names if separator in name]
        found = [name for name in joined if len(parts := name.split(separator)) > 1 and all(part.strip() in known for part in parts)]
        if found:
            quoted = ", and on the command line a class of this name stands in double quotes" if separator == "," else ""
            return (
                f"{examples(list(map(repr, found)))} {'looks' if len(found) == 1 else 'look'} like several labels joined by {separator!r}; "
                f"with task='multi-label' labels are separated by '|', ';' or ','{quoted}"
            )
    return ""
