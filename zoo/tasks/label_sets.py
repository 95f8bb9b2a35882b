"""Several labels per sample: cells of any common form to rows of 0 and 1.

| a cell, or an item in memory | is read as |
|---|---|
| ``cat|dog``, ``cat;dog`` | names |
| ``cat,dog`` | names, unless a cell of the column has ``|`` or ``;``, or a given class has a comma |
| ``['cat', 'dog']``, ``["cat"]``, ``{'cat'}`` as text | names |
| ``[1, 0]``, ``[1. 0.]``, ``1 0``, ``1,0`` as text, lists of numbers | one value per class: 0, 1, NaN if missing, -1 if uncertain |
| a list, tuple or set of names | names |
| an empty cell or list | none of the classes |
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.data.table import Array, item_name
from zoo.errors import DataError, count, examples
from zoo.tasks.label_names import check_classes, class_order, is_missing, name_of, plain, refuse_unknown

log = logging.getLogger(__name__)
UNCERTAIN = -1.0
LARGEST = 4 * 2**30  # bytes of a table of targets
_BRACKETED = re.compile(r"\[.*\]|\(.*\)|\{.*\}", re.DOTALL)
_NUMBER = r"(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)|nan|none|null)"
_BLANKS = re.compile(rf"{_NUMBER}(?:\s+{_NUMBER})+", re.IGNORECASE)
_ITEM = re.compile(r""" "((?:[^"\\]|\\.)*)" | '((?:[^'\\]|\\.)*)' | ([^\s,'"][^,]*) """, re.VERBOSE)
_OF_ROWS = (0.0, 1.0, UNCERTAIN)
_AS_TEXT = "class indices are given as names, such as [['0', '2'], ['1']]"


def encode_sets(labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str) -> tuple[Array, tuple[str, ...]]:
    """Return float32 rows ``(n, classes)`` of 0 and 1, NaN for a missing and -1 for an uncertain label, and the classes.

    Raises:
        DataError: If a row of numbers has other values or another length, or a name is none of ``classes``.
    """
    parts = _parts_of(labels, classes, source)
    rows = [_is_row(part) for part in parts if part]
    if any(rows):
        if not all(rows):
            raise DataError(
                f"{source}: {count(sum(rows), 'label')} of {len(labels)} are lists of numbers and {len(rows) - sum(rows)} are names; "
                "give names for all samples, or a row of 0 and 1 for each"
            )
        return _of_rows(parts, inputs, classes, source)
    return _of_names(parts, inputs, classes, source)


def _of_names(
    parts: Sequence[Sequence[Any]], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
) -> tuple[Array, tuple[str, ...]]:
    odd = [item_name(inputs, row) for row, part in enumerate(parts) if any(is_missing(name) or not is_name(name) for name in part)]
    if odd:
        raise DataError(f"{source}: {count(len(odd), 'list')} of labels hold something else than names: {examples(odd)}; give names only")
    names = [[name_of(name) for name in part] for part in parts]
    known = check_classes(classes) if classes is not None else class_order({name for part in names for name in part})
    place = {name: index for index, name in enumerate(known)}
    refuse_unknown(names, place, inputs, source)
    _check_size(len(names), len(known), source)
    targets = np.zeros((len(names), len(known)), dtype=np.float32)
    for row, part in enumerate(names):
        targets[row, [place[name] for name in part]] = 1
    return targets, known


def _of_rows(
    rows: Sequence[Sequence[Any]], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
) -> tuple[Array, tuple[str, ...]]:
    widths = sorted({len(row) for row in rows})
    known = check_classes(classes) if classes is not None else tuple(map(str, range(widths[-1])))
    if widths != [len(known)]:
        raise DataError(
            f"{source}: rows of 0 and 1 have {examples(widths)} columns, but there are {count(len(known), 'class')}; {_AS_TEXT}"
        )
    _check_size(len(rows), len(known), source)
    targets = np.array([[math.nan if is_missing(value) else value for value in row] for row in rows], dtype=np.float32)
    odd = np.argwhere(~(np.isin(targets, _OF_ROWS) | np.isnan(targets)))
    if len(odd):
        places = [f"{item_name(inputs, int(row))}: {rows[row][column]!r}" for row, column in odd[:4]] + [""] * (len(odd) - 4)
        raise DataError(
            f"{source}: {count(len(odd), 'value')} in rows of 0 and 1 are others: {examples(places)}; "
            f"a label is 0, 1, NaN if it is missing, or -1 if it is uncertain; {_AS_TEXT}"
        )
    return targets, known


def _check_size(samples: int, classes: int, source: str) -> None:
    size = samples * classes * 4
    if size > LARGEST:
        raise DataError(
            f"{source}: targets of {samples} samples and {classes} labels take {size / 2**30:.0f} GiB, more than the {LARGEST / 2**30:.0f} "
            "that are allowed; leave out rare labels, or train on fewer samples"
        )


def is_name(part: Any) -> bool:
    """Return whether a part of a label can be a name, and is no list or mapping."""
    return isinstance(part, str | bool | int | float)


def _is_row(parts: Sequence[Any]) -> bool:
    return all(is_missing(part) or isinstance(part, bool | int | float) for part in parts) and not any(isinstance(p, str) for p in parts)


def _parts_of(labels: Sequence[Any], classes: Sequence[str] | None, source: str) -> list[list[Any]]:
    """Return the parts of each label: names, or the numbers of a row."""
    texts = [label for label in labels if isinstance(label, str) and label and not _BRACKETED.fullmatch(label)]
    separator = _separator(texts, classes, source)
    parts = [_parts(label, separator) for label in labels]
    written = [part for part in parts if part and all(isinstance(one, str) for one in part)]
    if written and _are_numbers(written):
        return [list(map(_number, part)) if part and isinstance(part[0], str) else part for part in parts]
    return parts


def _separator(texts: Sequence[str], classes: Sequence[str] | None, source: str) -> re.Pattern[str]:
    if texts and all(map(_BLANKS.fullmatch, texts)) and _are_numbers([text.split() for text in texts]):
        return re.compile(r"\s+")
    commas = sum("," in text for text in texts)
    if not commas or any("|" in text or ";" in text for text in texts) or any("," in str(name) for name in classes or ()):
        return re.compile(r"[|;]")
    if classes is None:  # else names that were split wrongly would be unknown
        line = "%s: labels are split at ',' (%s of %d); where names have commas, separate them by '|'"
        log.info(line, source, count(commas, "cell"), len(texts))
    return re.compile(",")


def _are_numbers(parts: Sequence[Sequence[str]]) -> bool:
    """Return whether texts are rows of one width with a value per class, which no column of names is."""
    if len(parts[0]) < 2 or any(len(part) != len(parts[0]) for part in parts):
        return False
    try:
        return all(math.isnan(value) or value in _OF_ROWS for part in parts for value in map(_number, part))
    except ValueError:
        return False


def _number(text: str) -> float:
    return math.nan if text.lower() in ("none", "null") else float(text)


def _parts(label: Any, separator: re.Pattern[str]) -> list[Any]:
    if isinstance(label, list | tuple | set | frozenset):
        return [plain(part) for part in label]
    if not isinstance(label, str):
        return [name_of(label)]
    if not _BRACKETED.fullmatch(label):
        return [part.strip() for part in separator.split(label) if part.strip()]
    try:
        listed = json.loads(label)
        return listed if isinstance(listed, list) else [label]
    except (ValueError, RecursionError):
        return _python_list(label[1:-1])


def _python_list(text: str) -> list[Any]:
    """Return the items of a list as Python or numpy print it; a name in quotes is text, what looks like a number is one."""
    quoted = [(match[1] if match[1] is not None else match[2], match[3]) for match in _ITEM.finditer(text)]
    if all(name is None for name, _ in quoted):
        bare = text.replace(",", " ").split()
        if all(re.fullmatch(_NUMBER, part, re.IGNORECASE) for part in bare):
            return list(map(_number, bare))
    return [plain(name if name is not None else rest) for name, rest in quoted]
