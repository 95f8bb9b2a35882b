"""Equal samples, and groups with samples in more than one split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from zoo.data.splits.leaks import group_pairs, rows_by_group
from zoo.data.splits.patients import PATIENT, STUDY, Known
from zoo.data.table import NO_GROUP, PIXELS, Array, Table
from zoo.errors import count, examples
from zoo.select.audit.findings.finding import Finding, found
from zoo.select.audit.reading.sources import Opened


def duplicates(data: Opened, equal: Sequence[Sequence[int]]) -> Iterator[Finding]:
    """Yield equal samples of different splits, of contradicting labels, and of one split.

    Args:
        data: The data.
        equal: The sets of equal rows.
    """
    splits, table = data.splits, data.table
    across = [pair for rows in equal if (pair := _across(rows, splits)) is not None]
    what = "file" if table.reads in PIXELS else "text"
    if across:
        samples = sum(len(rows) for rows in equal if _across(rows, splits) is not None)
        where = examples([f"{table.name_of(one)} ({splits[one]}) and {table.name_of(other)} ({splits[other]})" for one, other in across])
        message = f"{count(len(across), what)} in more than one split ({samples} samples): {where}; remove them from all but one"
        yield found("duplicates", "leak", message, across, [f"{splits[one]} and {splits[other]}" for one, other in across])
    against = [pair for rows in equal if (pair := _contradicting(rows, table)) is not None]
    if against:
        named = examples([f"{table.name_of(one)} and {table.name_of(other)}" for one, other in against])
        message = f"{count(len(against), 'set')} of equal samples with contradicting labels: {named}; correct them"
        yield found("duplicates", "warning", message, against, [label_pair(table, *pair) for pair in against])
    within = [(rows[0], rows[1]) for rows in equal if _across(rows, splits) is None]
    if within:
        more = sum(len(rows) - 1 for rows in equal if _across(rows, splits) is None)
        repeat = "repeats" if more == 1 else "repeat"
        message = f"{count(more, 'sample')} of one split {repeat} another one; splits that zoo makes keep them together"
        yield found("duplicates", "note", message, within, count=more)


def equal_volumes(equal: Sequence[Sequence[int]], voxels: Array) -> list[list[int]]:
    """Return the sets of rows of equal content, with those of the same values in files of other bytes, such as ``.nii`` and ``.nii.gz``.

    Args:
        equal: The sets of rows whose files are equal.
        voxels: A digest of the values of each row, empty where unknown.
    """
    first = np.arange(len(voxels))
    for rows in equal:
        first[list(rows)] = rows[0]
    sets: dict[str, list[int]] = {}
    for row, start in enumerate(first):
        sets.setdefault(str(voxels[start]) or f"row {start}", []).append(row)
    return [rows for rows in sets.values() if len(rows) > 1]


def header_patients(data: Opened, known: Known, dicom: Array) -> Iterator[Finding]:
    """Yield patients (or studies) of DICOM headers with samples in two splits, and ids of patients that tell little.

    Args:
        data: The data, without groups of their own.
        known: What the headers tell.
        dicom: Whether each row is a DICOM file.
    """
    what = "patient" if known.attribute == PATIENT else "study"
    rows = rows_by_group(known.groups()).values() if known.number > 1 else ()
    across = [pair for some in rows if (pair := _across(some, data.splits)) is not None]
    if across:
        splits, name_of, ids = data.splits, data.table.name_of, known.ids
        named = examples([f"{ids[one]} ({name_of(one)} in {splits[one]}, {name_of(other)} in {splits[other]})" for one, other in across])
        message = f"{count(len(across), what)} of the DICOM headers in more than one split: {named}; split by {what}"
        yield found("groups", "leak", message, across, [f"{what} {ids[one]}: {splits[one]} and {splits[other]}" for one, other in across])
    if known.odd and dicom.sum() > 1:
        rest = f"{known.number} studies ({STUDY}) are kept whole instead" if known.divides else "no split can keep patients together"
        message = f"the {PATIENT} of {int(dicom.sum())} DICOM files {known.odd}, so {rest}; name a column group"
        yield Finding("groups", "note", message, int(dicom.sum()))


def groups(data: Opened) -> Iterator[Finding]:
    """Yield groups with samples in two splits, and ids that differ in their spelling only."""
    table = data.table
    if table.groups is None:
        return
    parts = {name: np.flatnonzero(data.splits == name) for name in data.names}
    for one, other in combinations(data.names, 2):
        here, there = table.select(parts[one]), table.select(parts[other])
        pairs = group_pairs(here, there)
        if not pairs:
            continue
        rows = [(int(parts[one][left[0]]), int(parts[other][right[0]])) for left, right in pairs]
        named = examples(
            [f"{table.groups[left]!r} ({table.name_of(left)}) and {table.groups[right]!r} ({table.name_of(right)})" for left, right in rows]
        )
        samples = sum(len(right) for _, right in pairs)
        message = f"{count(len(pairs), 'group')} in {one} and in {other} ({samples} samples of {other}): {named}; split by group"
        yield found("groups", "leak", message, rows, [f"group {table.groups[left]}: {one} and {other}" for left, _ in rows])
    spelt = [sorted({table.groups[row] for row in rows}) for rows in rows_by_group(table.groups).values()]
    variants = [" and ".join(map(repr, names)) for names in spelt if len(names) > 1]
    if variants:
        message = (
            f"{count(len(variants), 'group')} whose id is written in several ways, read as one: {examples(variants)}; write them alike"
        )
        yield Finding("groups", "warning", message, len(variants))
    without = sum(group.startswith(NO_GROUP) for group in table.groups)
    if without:
        yield Finding("groups", "note", f"{count(without, 'sample')} without a group; each is one of its own", without)


def label_pair(table: Table, one: int, other: int) -> str:
    """Return the labels of two rows for a caption."""
    return f"{label_of(table, one)} and {label_of(table, other)}"


def label_of(table: Table, row: int) -> str:
    """Return the label of a row as text; empty if it has none."""
    target = None if table.targets is None else table.targets[row]
    if target is None or not table.classes or np.ndim(target):
        return "" if target is None else str(np.asarray(target).tolist())
    return table.classes[int(target)] if target >= 0 else ""


def _across(rows: Sequence[int], splits: Array) -> tuple[int, int] | None:
    """Return the first rows of two different splits, or None."""
    other = next((row for row in rows if splits[row] != splits[rows[0]]), None)
    return None if other is None else (rows[0], other)


def _contradicting(rows: Sequence[int], table: Table) -> tuple[int, int] | None:
    labels = [label_of(table, row) for row in rows]
    known = [(row, label) for row, label in zip(rows, labels, strict=True) if label]
    other = next((row for row, label in known if label != known[0][1]), None)
    return None if other is None else (known[0][0], other)
