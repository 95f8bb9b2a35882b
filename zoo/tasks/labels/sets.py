"""Several labels per sample: cells of any common form to rows of 0 and 1.

| a cell, or an item in memory | is read as |
|---|---|
| ``cat|dog``, ``cat;dog`` | names |
| ``cat,dog`` | names, unless a cell of the column has ``|`` or ``;``, or a given class has a comma |
| ``['cat', 'dog']``, ``["cat"]``, ``{'cat'}`` as text | names |
| ``[1, 0]``, ``[1. 0.]``, ``1 0``, ``1,0`` as text, lists of numbers | one value per class: 0, 1, NaN if missing, -1 if uncertain |
| ``0|1`` as text, where 0 and 1 are given classes | names, unless a cell has one twice, or the cells have them in several orders |
| a list or tuple of names, a set | names |
| ``"cat","dog"`` as text | names |
| an empty cell or list | none of the classes |
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from zoo.data.raw import Indicators
from zoo.data.sources.cells import is_unlabelled
from zoo.data.table import Array, item_name
from zoo.errors import DataError, count, examples
from zoo.tasks.labels.joined_names import check_joined
from zoo.tasks.labels.names import WRITTEN_LIST, check_classes, class_order, is_number, name_of, plain, refuse_unknown
from zoo.util.numbers import in_units

log = logging.getLogger("zoo")
UNCERTAIN = -1.0
MAX_TARGET_BYTES = 4 * 2**30  # of a table of targets
_NUMBER = r"(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)|nan|none|null)"
_QUOTED = re.compile(r"""\s*"[^"]*"(?:\s*[,;|]\s*"[^"]*")*\s*""")  # names in quotation marks, such as "a","b"
_MAPPING = re.compile(r"""\{\s*(?:"[^"]*"|'[^']*'|\w[^\s,:]*)\s*:""")
_BLANKS = re.compile(rf"{_NUMBER}(?:\s+{_NUMBER})+", re.IGNORECASE)
_BLANK = re.compile(r"\s+")
_ITEM = re.compile(r""" "((?:[^"\\]|\\.)*)" | '((?:[^'\\]|\\.)*)' | ([^\s,'"][^,]*) """, re.VERBOSE)
_OF_ROWS = (0.0, 1.0, UNCERTAIN)
_AS_TEXT = "class indices are given as names, such as [['0', '2'], ['1']]"


def encode_sets(labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str) -> tuple[Array, tuple[str, ...]]:
    """Return float32 rows ``(n, classes)`` of 0 and 1, NaN for a missing and -1 for an uncertain label, and the classes.

    Raises:
        DataError: If a row of numbers has other values or another length, or a name is none of ``classes``.
    """
    parts = parse_sets(labels, classes, source)
    _refuse_mappings(parts, inputs, source)
    rows = [_is_row(part) for part in parts if not all(map(is_unlabelled, part))]
    if any(rows) or (not rows and any(_is_row(part) for part in parts if part)):
        if not all(rows):
            raise DataError(
                f"{source}: labels are lists of numbers in {count(sum(rows), 'sample')} of {len(labels)} and names in "
                f"{len(rows) - sum(rows)}; give names for all samples, or a row of 0 and 1 for each"
            )
        return _of_rows(parts, inputs, classes, source)
    return _of_names(parts, inputs, classes, source)


def _of_names(
    parts: Sequence[Sequence[Any]], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
) -> tuple[Array, tuple[str, ...]]:
    odd = [item_name(inputs, row) for row, part in enumerate(parts) if any(is_unlabelled(name) or not is_name(name) for name in part)]
    if odd:
        raise DataError(f"{source}: something else than names in {count(len(odd), 'list')} of labels: {examples(odd)}; give names only")
    names = [[name_of(name) for name in part] for part in parts]
    known = check_classes(classes) if classes is not None else class_order({name for part in names for name in part})
    if classes is None:
        _refuse_marks(names, inputs, source)
        check_joined(names, known, source)
    place = {name: index for index, name in enumerate(known)}
    refuse_unknown(names, place, inputs, source)
    _check_size(len(names), len(known), source)
    targets = np.zeros((len(names), len(known)), dtype=np.float32)
    for row, part in enumerate(names):
        targets[row, [place[name] for name in part]] = 1
    return targets, known


def _refuse_marks(names: Sequence[Sequence[str]], inputs: Sequence[Any], source: str) -> None:
    """Check that -1, which marks an uncertain label in rows of 0 and 1, is no name beside names that are no numbers."""
    marked = [item_name(inputs, row) for row, part in enumerate(names) if "-1" in part]
    if marked and not all(is_number(name) for part in names for name in part):
        raise DataError(
            f"{source}: -1 beside names in {count(len(marked), 'sample')} of {len(names)}: {examples(marked)}; remove these rows if "
            "their labels are unknown, and leave the cell empty if none of the classes applies; -1 means uncertain in rows of 0 and 1 only"
        )


def _of_rows(
    rows: Sequence[Sequence[Any]], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
) -> tuple[Array, tuple[str, ...]]:
    empty = [item_name(inputs, index) for index, row in enumerate(rows) if not row]
    if empty:
        raise DataError(
            f"{source}: rows of 0 and 1 need a value for every class, 0 if it does not apply and NaN if that is unknown; "
            f"empty in {count(len(empty), 'sample')} of {len(rows)}: {examples(empty)}"
        )
    widths = sorted({len(row) for row in rows})
    known = check_classes(classes) if classes is not None else tuple(map(str, range(widths[-1])))
    if widths != [len(known)]:
        raise DataError(
            f"{source}: rows of 0 and 1 have {examples(widths)} columns, but there are {count(len(known), 'class')}; {_AS_TEXT}"
        )
    _check_size(len(rows), len(known), source)
    targets = np.array([[math.nan if is_unlabelled(value) else value for value in row] for row in rows], dtype=np.float32)
    odd = np.argwhere(~(np.isin(targets, _OF_ROWS) | np.isnan(targets)))
    if len(odd):
        places = [f"{item_name(inputs, int(row))}: {rows[row][column]!r}" for row, column in odd[:4]] + [""] * (len(odd) - 4)
        raise DataError(
            f"{source}: other values in rows of 0 and 1 ({count(len(odd), 'value')}): {examples(places)}; "
            f"a label is 0, 1, NaN if it is missing, or -1 if it is uncertain; {_AS_TEXT}"
        )
    return targets, known


def _check_size(samples: int, classes: int, source: str) -> None:
    size = samples * classes * 4
    if size > MAX_TARGET_BYTES:
        raise DataError(
            f"{source}: targets of {samples} samples and {classes} labels take {in_units(size)}, more than the "
            f"{in_units(MAX_TARGET_BYTES)} that are allowed; leave out rare labels, or train on fewer samples"
        )


def is_name(part: Any) -> bool:
    """Return whether a part of a label can be a name, and is not a list or mapping."""
    return isinstance(part, str | bool | int | float)


def _is_row(parts: Sequence[Any]) -> bool:
    return all(is_unlabelled(part) or isinstance(part, bool | int | float) for part in parts) and not any(
        isinstance(part, str) for part in parts
    )


def parse_sets(labels: Sequence[Any], classes: Sequence[str] | None, source: str) -> list[Any]:
    """Return each label as a list of names or as the numbers of a row.

    The form is decided over all of them. Parsed labels stay as they are, and so do missing ones, mappings and values of label columns.
    """
    labels = [plain(label) for label in labels]
    texts = [label for label in labels if _is_text(label) and label and not WRITTEN_LIST.fullmatch(label) and not _QUOTED.fullmatch(label)]
    separator = _separator(texts, classes, source)
    cells = [part for text in texts if (part := _split(text, separator))]
    numbers = separator is _BLANK or _are_rows(cells, classes)
    return [_parts(label, separator, numbers=numbers) for label in labels]


def _is_text(label: Any) -> TypeGuard[str]:
    """Return whether a label is text that can be parsed: no missing value and no mapping."""
    return isinstance(label, str) and not is_unlabelled(label, empty_is_none=True) and not _MAPPING.match(label)


def _separator(texts: Sequence[str], classes: Sequence[str] | None, source: str) -> re.Pattern[str]:
    if texts and all(map(_BLANKS.fullmatch, texts)) and _are_numbers([text.split() for text in texts]):
        return _BLANK
    commas = sum("," in text for text in texts)
    others = sum("|" in text or ";" in text for text in texts)
    if not commas or others or any("," in str(name) for name in classes or ()):
        if commas and others and classes is None:
            line = "%s: labels are split at '|' and ';' (%s), so a comma is part of a name (%s); separate all labels alike"
            log.info(line, source, count(others, "cell"), count(commas, "cell"))
        return re.compile(r"[|;]")
    if classes is None:  # else names that were split wrongly would be unknown
        line = "%s: labels are split at ',' (%s of %d); where names have commas, separate them by '|'"
        log.info(line, source, count(commas, "cell"), len(texts))
    return re.compile(",")


def _are_rows(cells: Sequence[Sequence[str]], classes: Sequence[str] | None) -> bool:
    """Return whether texts are rows with a value per class, and no names of ``classes``."""
    if not cells or not _are_numbers(cells):
        return False
    known = frozenset(check_classes(classes)) if classes is not None else frozenset()
    if not all(known.issuperset(cell) for cell in cells) or any(len(set(cell)) < len(cell) for cell in cells):
        return True
    return len(cells[0]) == len(known) and len(set(map(frozenset, cells))) < len(set(map(tuple, cells)))


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


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    return [part.strip() for part in separator.split(text) if part.strip()]


def _parts(label: Any, separator: re.Pattern[str], *, numbers: bool) -> Any:
    if isinstance(label, Indicators | Mapping) or is_unlabelled(label, empty_is_none=True):
        return label
    if isinstance(label, set | frozenset):  # it has no order, so its numbers are names
        return [plain(part) if is_unlabelled(part) or not is_name(part) else name_of(part) for part in label]
    if isinstance(label, list | tuple):
        return [plain(part) for part in label]
    if not isinstance(label, str):
        return [name_of(label)]
    if not _is_text(label):
        return label
    if _QUOTED.fullmatch(label):
        return [plain(name) for name in re.findall(r'"([^"]*)"', label)]
    if not WRITTEN_LIST.fullmatch(label):
        return list(map(_number, _split(label, separator))) if numbers else _split(label, separator)
    if label.startswith("{"):
        return _parts(set(_python_list(label[1:-1])), separator, numbers=False)
    try:
        listed = json.loads(label)
        return listed if isinstance(listed, list) else [label]
    except (ValueError, RecursionError):
        return _python_list(label[1:-1])


def _refuse_mappings(labels: Sequence[Any], inputs: Sequence[Any], source: str) -> None:
    odd = [f"{item_name(inputs, row)} ({label!r})" for row, label in enumerate(labels) if not isinstance(label, list)]
    if odd:
        raise DataError(
            f"{source}: a label cannot be a mapping ({count(len(odd), 'sample')} of {len(labels)}): {examples(odd)}; give lists of the "
            "names that apply, or a table with a column per class (label_columns=)"
        )


def _python_list(text: str) -> list[Any]:
    """Return the items of a list as Python or numpy print it; a name in quotes is text, what looks like a number is one."""
    quoted = [(match[1] if match[1] is not None else match[2], match[3]) for match in _ITEM.finditer(text)]
    if all(name is None for name, _ in quoted):
        bare = text.replace(",", " ").split()
        if all(re.fullmatch(_NUMBER, part, re.IGNORECASE) for part in bare):
            return list(map(_number, bare))
    return [plain(name if name is not None else rest) for name, rest in quoted]
