"""Opening of any source as one table: folders, CSV and Parquet files, DataFrames, datasets, arrays, lists."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from zoo.data.raw import Raw, ReadOptions, join
from zoo.data.several import read_labelled
from zoo.data.sources.array_files import in_memory
from zoo.data.sources.cells import is_unlabelled
from zoo.data.splits.duplicates import warn_of_contradictions
from zoo.data.splits.leaks import check_leak
from zoo.data.splits.patients import OF_HEADERS, in_headers, with_patients
from zoo.data.splits.train_valid import check_trainable, choose_rows, hold_out
from zoo.data.table import Table, rows_of_split, split_word
from zoo.errors import HoldOutError, OptionError
from zoo.tasks.find import find_task
from zoo.tasks.labels.encode import check_uncertain, class_names, encode, keep_classes
from zoo.tasks.labels.warnings import warn_of_labels
from zoo.tasks.several import SeveralTasks
from zoo.tasks.task import Task

_NONE: Mapping[str, str | Sequence[str]] = MappingProxyType({})
log = logging.getLogger("zoo")
FEW_HELD_OUT = 10  # samples; below, the score of an epoch moves by more than 10 points with each
UNMEASURED = "so nothing is measured; zoo cv (zoo.select.cross_validate) gives a score, or give validation data (valid, --valid)"


def open_data(
    source: Any,
    *,
    task: str = "single-label",
    classes: Sequence[str] | None = None,
    split: str | None = None,
    columns: Mapping[str, str | Sequence[str]] = _NONE,
    labelled: bool | None = None,
    drop_other_classes: bool = False,
    reads: str = "image",
    label_columns: Sequence[str] = (),
    uncertain: str | None = None,
    root: str | os.PathLike[str] | None = None,
    channels: int = 3,
    keep_unreadable: bool = False,
    skip_broken: bool = False,
    default_split: str | None = None,
) -> Table:
    """Open any source as one table without decoding it.

    Args:
        source: An image folder (class subfolders, or train/ val/ test/ with class subfolders, or images alone); a CSV,
            TSV or Parquet file (``file_name``, ``label``, optional ``split`` and ``group``; paths relative to the file);
            a DataFrame; a ``datasets.Dataset`` or ``DatasetDict``; a torch ``Dataset`` of ``(input, target)``;
            an .npz file of arrays (``train_images``, ``train_labels``, …, or ``x`` and ``y``);
            ``(X, y)`` with X uint8 or float in [0, 1] of shape ``(samples, height, width[, channels])``; an image file;
            a list of paths, PIL images, arrays or tensors; a ``Table``. Of several tasks also a source for each, by the name of its
            task, and ``(X, {task: y})``. Texts: a CSV, TSV or Parquet file, DataFrame or
            Hub dataset with ``text`` (and ``text_pair``) or ``words``, a CoNLL file, a list of texts, ``(texts, labels)``.
        task: ``single-label``, ``multi-label`` (labels separated by ``|``, ``;`` or ``,``, or lists), ``regression`` or
            ``token-classification``; or several tasks, such as ``kind=single-label,age=regression``, which read a column each.
        classes: Class names in the order of the targets, or None to find them: sorted as text, as numbers where all
            are integers.
        split: Only this split; ``val``, ``valid`` and ``validation`` are the same.
        columns: Names of the columns of a table by role, such as ``{"file_name": "file", "group": "patient_id"}``.
        labelled: True requires labels, False ignores them (prediction), None takes them if the source has them.
        drop_other_classes: Drop samples whose label is none of ``classes``, instead of raising.
        reads: Kind of the inputs: ``image``, ``volume``, ``text`` or ``words``; see ``Table``.
        label_columns: Columns of a table that hold the labels, one per class, with 0 and 1, empty where unknown.
        uncertain: What a label of -1 counts as in a multi-label task: ``mask``, ``positive`` or ``negative``; None refuses it.
        root: Folder of the files that a table names, with or without suffix; None is that of the table.
        channels: Channels of the images that the model takes.
        keep_unreadable: Keep the rows of files that do not exist, of empty cells, and of texts that are none; see ``Unreadable``.
        skip_broken: Keep the rows of items that a torch dataset cannot give, to be left out by ``zoo.data.unreadable.drop_corrupt``.
        default_split: Where ``split`` is None, the split that is read of one .npz file with several, if it has it.

    Returns:
        The table.

    Raises:
        DataError: If the source is missing, empty or of an unknown kind, or its labels are wrong.
        OptionError: If options do not apply to the source or the task.
    """
    kind = find_task(task)
    check_uncertain(uncertain, kind)
    columns, header = in_headers(columns, reads)
    options = ReadOptions(columns, labelled, reads, label_columns, root, channels, keep_unreadable, skip_broken, header_group=header)
    raw = read_labelled(source, options, kind)
    if drop_other_classes and raw.labels is not None:
        raw = keep_classes(raw, classes, kind)
    if split is None and default_split is not None and raw.bundle and default_split in map(split_word, raw.splits or ()):
        split = default_split
        log.info("%s: its part %r is read; split= (--split) names another", raw.source, split)
    if split is not None:
        raw = raw.select(rows_of_split(raw.splits, split, raw.source))
    if labelled:
        (raw,) = with_patients([raw], options)
    table = _table(raw, kind, classes, reads, uncertain)
    warn_of_labels(table, found=classes is None)
    return table


def open_splits(
    train: Any,
    valid: Any = None,
    test: Any = None,
    *,
    task: str = "single-label",
    columns: Mapping[str, str | Sequence[str]] = _NONE,
    reads: str = "image",
    label_columns: Sequence[str] = (),
    uncertain: str | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Table:
    """Open all rows of all splits as one table, to look at them and not to train; nothing that a row holds is refused.

    Args:
        train: A source as ``open_data`` takes it, with or without splits.
        valid: Another source, whose rows are the split ``valid`` unless it has splits of its own.
        test: A further one, whose rows are the split ``test``.
        task: As in ``open_data``.
        columns: As in ``open_data``, for all sources.
        reads: Kind of the inputs.
        label_columns: As in ``open_data``.
        uncertain: As in ``open_data``; None masks.
        root: As in ``open_data``, for all sources.

    Returns:
        The rows with a split for each: ``train``, ``valid``, ``test`` or a name of its own. Rows without a label have the target -1, or
        NaN in a multi-label task and a regression; ``targets`` is None where no row has one.

    Raises:
        DataError: If a source cannot be read.
    """
    kind = find_task(task)
    columns, header = in_headers(columns, reads)
    options = ReadOptions(columns, None, reads, label_columns, root, keep_unreadable=True, skip_broken=True, header_group=header)
    sources = {"train": train, "valid": valid, "test": test}
    parts = [_in_splits(read_labelled(source, options, kind), name) for name, source in sources.items() if source is not None]
    raw = join(parts, " and ".join(part.source for part in parts))
    if header:  # patients are known to the check, which reads more of the headers
        (raw,) = with_patients([raw], options)
    labels = raw.labels or ()
    known = [row for row, label in enumerate(labels) if not is_unlabelled(label, empty_is_none=not kind.exclusive and kind.has_classes)]
    table = _table(raw.select(known) if len(known) < len(raw) else raw, kind, None, reads, uncertain or "mask") if known else None
    if table is not None and table.targets is not None and len(known) < len(raw):
        targets = np.full((len(raw), *table.targets.shape[1:]), -1 if table.targets.dtype.kind == "i" else np.nan, table.targets.dtype)
        targets[known] = table.targets
        table = replace(table, targets=targets)
    everything = _table(replace(raw, labels=None), kind, None, reads, None)
    return everything if table is None else replace(everything, targets=table.targets, classes=table.classes)


def _in_splits(raw: Raw, name: str) -> Raw:
    """Return rows with a split for each: its own, or ``name``."""
    return raw.with_split(name) if raw.splits is None else replace(raw, splits=[split_word(split) for split in raw.splits])


def open_train_valid(
    train: Any,
    valid: Any = None,
    *,
    task: str = "single-label",
    classes: Sequence[str] | None = None,
    columns: Mapping[str, str | Sequence[str]] = _NONE,
    valid_split: str | None = None,
    seed: int = 0,
    allow_leak: bool = False,
    drop_other_classes: bool = False,
    reads: str = "image",
    label_columns: Sequence[str] = (),
    uncertain: str | None = None,
    root: str | os.PathLike[str] | None = None,
    channels: int = 3,
    skip_broken: bool = False,
    whole_up_to: int = 0,
) -> tuple[Table, Table | None]:
    """Open the training data and the validation data.

    Validation data are ``valid`` if given; else the rows of the source's split ``valid_split``, or of the one called val,
    valid or validation; else 20 % held out by ``seed``, stratified by class and never through a group. Rows of a split
    called test are not used. ``False`` trains on all rows of all splits.

    Args:
        train: A source as ``open_data`` takes it.
        valid: Another source, None, or False for no validation.
        task: As in ``open_data``.
        classes: Class names in the order of the targets, or None for those of both sources together.
        columns: As in ``open_data``, for all sources.
        valid_split: Value of the split column that is held out, such as a fold ``"0"``.
        seed: Seed of a hold-out.
        allow_leak: Allow files and groups with samples on both sides; they are logged, and stand in the record of a run.
        drop_other_classes: Drop samples whose label is none of ``classes``, instead of raising.
        reads: Kind of the inputs: ``image``, ``volume``, ``text`` or ``words``; see ``Table``.
        label_columns: Columns of a table that hold the labels, one per class, with 0 and 1, empty where unknown.
        uncertain: What a label of -1 counts as in a multi-label task: ``mask``, ``positive`` or ``negative``; None refuses it.
        root: Folder of the files that a table names, with or without suffix, for both sources; None is that of the table.
        channels: Channels of the images that the model takes.
        skip_broken: As in ``open_data``.
        whole_up_to: Number of samples up to which nothing is held out of a source without splits, which is logged.

    Returns:
        Two tables with the same classes and no split column, which ``fit`` takes as they are. The second is None if ``valid``
        is False, or nothing is held out.

    Raises:
        DataError: If a class has no sample in train, or there is one class only.
        LeakError: If a file or a group is on both sides.
    """
    on_all, valid = valid is False, None if valid is False else valid
    if valid is not None and valid_split is not None:
        raise OptionError("give either a validation source or valid_split=, not both")
    kind = find_task(task)
    check_uncertain(uncertain, kind)
    columns, header = in_headers(columns, reads)
    options = ReadOptions(columns, True, reads, label_columns, root, channels, skip_broken=skip_broken, header_group=header)
    raw, other = read_labelled(train, options, kind), None if valid is None else read_labelled(valid, options, kind)
    if drop_other_classes:
        raw, other = keep_classes(raw, classes, kind), other and keep_classes(other, classes, kind)
    found = with_patients([raw] if other is None else [raw, other], options)
    of_headers = found[0].groups is not raw.groups
    raw, other = found[0], None if other is None else found[1]
    first, second = (raw, None) if on_all else _sides(raw, other, valid_split)
    if second is None:
        table = _table(first, kind, classes, reads, uncertain)
        warn_of_labels(table, found=classes is None, can_drop=True)
        if on_all:
            return _checked(table), None
        return _whole(table) if raw.splits is None and len(table) <= whole_up_to else _held_out(table, seed, of_headers=of_headers)
    tables = _tables(first, second, kind, classes, reads, uncertain)
    warn_of_labels(tables[0], found=classes is None, can_drop=True)
    warn_of_labels(tables[1], found=False)
    _checked(tables[0])
    leak = check_leak(*tables, allow=allow_leak, of_groups=OF_HEADERS if of_headers else "")
    return _without_splits(tables[0], replace(tables[1], leak=leak))


def _sides(raw: Raw, other: Raw | None, valid_split: str | None) -> tuple[Raw, Raw | None]:
    """Return the rows for training and for validation by source and split; None if rows must be held out."""
    if other is not None:
        return _part(raw, "train"), _part(other, "valid")
    if raw.splits is None and valid_split is None:
        return raw, None
    rows, held = choose_rows(raw.splits, valid_split, raw.source)
    return raw.select(rows), None if held is None else raw.select(held)


def _tables(first: Raw, second: Raw, task: Task, classes: Sequence[str] | None, reads: str, uncertain: str | None) -> tuple[Table, Table]:
    """Return the tables of both sides, with the classes of both together where none are given."""
    first, second = _parsed(first, second, task, classes)
    names = classes or class_names(join([first, second], first.source), task)
    return _table(first, task, names, reads, uncertain), _table(second, task, names, reads, uncertain)


def _parsed(first: Raw, second: Raw, task: Task, classes: Sequence[str] | None) -> tuple[Raw, Raw]:
    """Return the rows of both with their labels in one form."""
    both = join([first, second], first.source)
    labels = task.parse(both.labels or (), classes if classes is not None else both.classes, both.source)
    return replace(first, labels=labels[: len(first)]), replace(second, labels=labels[len(first) :])


def _checked(table: Table) -> Table:
    check_trainable(table)
    warn_of_contradictions(table)
    return table


def _whole(table: Table) -> tuple[Table, None]:
    line = "%s: no validation data given, and none of %d samples are held out, as so few judge little: all are trained on, %s"
    log.info(line, table.source, len(table), UNMEASURED)
    return _checked(table), None


def _held_out(table: Table, seed: int, *, of_headers: bool) -> tuple[Table, Table]:
    check_trainable(table)
    try:
        train, valid = hold_out(table, seed)
    except HoldOutError as error:
        if of_headers:
            error.add(OF_HEADERS)
        raise
    how = "by group" if table.groups is not None else "stratified by class" if table.classes else "at random"
    line = "%s: no validation data given; %d of %d samples (%.0f %%) held out %s, seed %d%s"
    hint = "; so few judge little" if len(valid) < FEW_HELD_OUT else ""
    log.info(line, table.source, len(valid), len(table), 100 * len(valid) / len(table), how, seed, hint)
    return _without_splits(train, replace(valid, held_out=True))


def _without_splits(train: Table, valid: Table) -> tuple[Table, Table]:
    """Return the tables without their split columns, so that later splits ignore them."""
    return replace(train, splits=None), replace(valid, splits=None)


def _part(raw: Raw, name: str) -> Raw:
    """Return the rows of a source given as train or as valid: those of its split of that name, or all."""
    if raw.splits is None:
        return raw
    if name == "valid":
        return raw.select(rows_of_split(raw.splits, name, raw.source))
    return raw.select(choose_rows(raw.splits, None, raw.source)[0])


def _table(raw: Raw, task: Task, classes: Sequence[str] | None, reads: str, uncertain: str | None) -> Table:
    if raw.labels is None:
        targets, names = None, tuple(classes or ())
    else:
        known = classes if classes is not None or not task.has_classes else raw.classes
        targets, names = encode(raw.labels, raw.inputs, task=task, classes=known, source=raw.source, uncertain=uncertain)
    groups = None if raw.groups is None else tuple(raw.groups)
    splits = None if raw.splits is None else tuple(raw.splits)
    parts = task.parts(names) if isinstance(task, SeveralTasks) and targets is not None else ()
    inputs = in_memory(raw.inputs)
    return Table(inputs, targets, classes=names, groups=groups, splits=splits, source=raw.source, reads=reads, parts=parts)
