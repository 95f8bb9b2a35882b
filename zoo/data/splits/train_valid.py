"""Splits into train and valid, stratified and by group."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from zoo.data.splits.duplicates import equal_samples, merged_groups
from zoo.data.splits.stratified import stratified_part
from zoo.data.table import Array, Table, looks_like_valid, rows_of_split, split_word
from zoo.errors import LISTED, DataError, HoldOutError, count, examples
from zoo.tasks.labels.names import is_number

SHARE = 0.2  # of the samples that is held out
_REMEDY = "give a validation set, or train on everything with valid=False (--no-valid)"
log = logging.getLogger("zoo")
_NUMBER = re.compile(r"0*(\d+)(\.0+)?")


def normal_group(group: str) -> str:
    """Return the normal form of a group id: ``007``, ``7 ``, ``7.0`` and ``7`` are equal, and case is ignored."""
    text = group.strip().casefold()
    number = _NUMBER.fullmatch(text)
    return number[1] if number else text


def choose_rows(splits: Sequence[str] | None, valid_split: str | None, source: str) -> tuple[Array, Array | None]:
    """Return the rows of train and of valid by the split column.

    Args:
        splits: Split per row, or None.
        valid_split: The split for validation; None takes the one called val, valid or validation.
        source: For messages.

    Returns:
        Rows of train: the split called train, else all but valid and test. Rows of valid, or None without such a split.

    Raises:
        DataError: If ``valid_split`` does not exist, or the splits have other names and none was chosen.
    """
    words = np.asarray([split_word(split) for split in splits or ()])
    if valid_split is not None or "valid" in words:
        held = rows_of_split(splits, "valid" if valid_split is None else valid_split, source)
    elif "train" in words:
        held = None
    else:
        names = examples(list(map(repr, sorted(set(splits or ())))), LISTED)
        raise DataError(
            f"{source} has splits {names}, none called train or valid; say which one to hold out, such as valid_split={str(words[0])!r}"
        )
    free = np.ones(len(words), dtype=bool)
    free[held if held is not None else []] = False
    free &= words == "train" if (free & (words == "train")).any() else words != "test"
    used = free.copy()
    used[held if held is not None else []] = True
    _report_unused([str(split) for split, one in zip(splits or (), used, strict=True) if not one], source, held is None)
    return np.flatnonzero(free), held


def warn_of_test_rows(splits: Sequence[str] | None, source: str) -> None:
    """Log a warning where a run without validation data, which takes the rows of all splits, trains on a split called test."""
    counts = Counter(split for split in splits or () if split_word(split) == "test")
    if counts:
        parts = examples([f"{count(number, 'row')} of split {name!r}" for name, number in sorted(counts.items())])
        line = "%s: nothing is held out, so all splits are trained on, also %s; measure it on other data, or give train alone"
        log.warning(line, source, parts)


def _report_unused(splits: Sequence[str], source: str, held_out: bool) -> None:
    """Log how many rows of which splits are not used; a warning if one of them may have been meant."""
    counts = Counter(splits)
    if not counts:
        return
    parts = [f"{count(number, 'row')} of split {name!r}" for name, number in sorted(counts.items())]
    line = f"{source}: not used: {examples(parts)}"
    odd = sorted(name for name in counts if looks_like_valid(name))
    if odd and held_out:
        line += f"; valid_split={odd[0]!r} takes one for validation"
    log.log(logging.INFO if all(split_word(name) == "test" for name in counts) else logging.WARNING, line)


def hold_out(table: Table, seed: int) -> tuple[Table, Table]:
    """Hold out rows for validation: stratified for single-label, by group if the table has groups; equal samples stay together.

    Args:
        table: Labelled rows.
        seed: Seed of the choice.

    Returns:
        The training rows and the held-out rows, both in their original order.

    Raises:
        HoldOutError: If no split leaves every class in training and at least one row on each side.
    """
    if table.targets is None or len(table) < 2:
        raise HoldOutError(f"{table.source}: {count(len(table), 'sample')} cannot be split into train and valid", _REMEDY)
    for held in _candidates(table, seed):
        rest = np.setdiff1d(np.arange(len(table)), held)
        if len(held) and len(rest) and _keeps_classes(table, rest):
            return table.select(rest), table.select(np.sort(held))
    raise HoldOutError(
        f"{table.source}: no split of {SHARE:.0%} leaves every class in train"
        f"{' without cutting a group' if table.groups is not None else ''}; {_sizes(table.counts())}",
        _REMEDY,
    )


def _candidates(table: Table, seed: int) -> list[Array]:
    """Return choices of held-out rows, the first that serves to be taken."""
    equal = equal_samples(table)
    first = None if equal is None else np.unique(equal)
    if first is not None and len(first) < 2:  # such as a trial with zeros
        log.warning("%s: all samples are equal, so the validation data are the same as the training data", table.source)
        equal = None
    if table.groups is not None:
        return _grouped(table if equal is None else replace(table, groups=merged_groups(table.groups, equal)), seed)
    if equal is None or first is None:
        return _ungrouped(table, seed)
    return [np.flatnonzero(np.isin(equal, first[held])) for held in _ungrouped(table.select(first), seed)]


def _ungrouped(table: Table, seed: int) -> list[Array]:
    rows = np.arange(len(table))
    targets = _strata(table)
    drawn = [_draw(rows, seed + attempt * 1_000_003) for attempt in range(20)] if targets is None or table.parts else []
    if targets is None:
        return drawn
    # The only sample of a class is for training.
    rows = rows[np.bincount(targets)[targets] > 1]
    present = len(np.unique(targets[rows]))
    size = max(round(SHARE * len(table)), present)
    if not present or size > len(rows) - present:
        return drawn
    return [rows[stratified_part(targets[rows], size, seed % 2**32)], *drawn]  # all that numpy's old generator takes


def _strata(table: Table) -> Array | None:
    """Return the class of each sample, of several tasks the classes together; None if there are none to spread evenly."""
    if is_single_label(table):
        return np.asarray(table.targets)
    if not any(part.kind == "class" for part in table.parts):
        return None
    targets = np.asarray(table.targets)
    found = np.zeros((len(table), len(table.parts)), dtype=np.int64)  # 0 where the label is missing
    for place, part in enumerate(table.parts):
        rows = part.known(targets)
        found[rows, place] = 1 + (targets[rows, part.start : part.stop].argmax(1) if part.kind == "class" else 0)
    return np.unique(found, axis=0, return_inverse=True)[1].reshape(-1)


def _grouped(table: Table, seed: int) -> list[Array]:
    groups = np.unique([normal_group(group) for group in table.groups or ()], return_inverse=True)[1]
    number = int(groups.max()) + 1
    if number < 2:
        only = (table.groups or ("",))[0]
        raise HoldOutError(f"{table.source}: all samples are of one group ({only!r}); it cannot be split without a leak", _REMEDY)
    if not is_single_label(table):
        draws = [_draw(np.arange(number), seed + attempt * 1_000_003) for attempt in range(20)]
        return [np.flatnonzero(np.isin(groups, drawn)) for drawn in draws]
    from sklearn.model_selection import StratifiedGroupKFold  # type: ignore[import-untyped]  # ships no types

    targets = np.asarray(table.targets)
    folds = int(min(round(1 / SHARE), number, np.bincount(targets).max()))
    if folds < 2:
        return []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)  # all that numpy's old generator takes
    with warnings.catch_warnings():
        # scikit-learn warns about classes with fewer samples than folds; only one fold is used, and train is checked.
        warnings.simplefilter("ignore", UserWarning)
        return [held for _, held in splitter.split(targets, targets, groups)]


def _draw(rows: Array, seed: int) -> Array:
    size = min(max(round(SHARE * len(rows)), 1), len(rows) - 1)
    return np.random.default_rng(seed).permutation(rows)[:size]


def is_single_label(table: Table) -> bool:
    """Return whether each sample has exactly one class."""
    return bool(table.classes) and table.targets is not None and table.targets.ndim == 1 and table.targets.dtype != object


def _keeps_classes(table: Table, rest: Array) -> bool:
    before, after = table.counts(), table.select(rest).counts()
    return all(after[name] for name, number in before.items() if number)


def check_trainable(table: Table) -> None:
    """Check that a training set has labels, at least two classes, and a sample of each.

    Raises:
        DataError: Naming the classes.
    """
    if table.targets is None:
        raise DataError(f"{table.source} has no labels; training needs class folders, a label column, or (X, y)")
    if not len(table):
        raise DataError(f"{table.source} has no training samples")
    if not table.classes:
        return
    if bare := [repr(part.name) for part in table.parts if not len(part.known(table.targets))]:
        raise DataError(f"{table.source}: no training sample has a label of task {examples(bare)}; give some, or leave the task out")
    counts = table.counts()
    empty = [repr(name) for name, number in counts.items() if not number]
    if empty:
        raise DataError(f"{table.source}: {count(len(empty), 'class')} without samples in train: {examples(empty)}; {_sizes(counts)}")
    if len(counts) == 1 and is_single_label(table):
        raise DataError(
            f"{table.source} has only one class, {table.classes[0]!r}; training needs two or more "
            f"(a subfolder of images each, or their names as labels){_folder_to_give(table)}"
        )


def _sizes(counts: Mapping[str, int]) -> str:
    """Return the numbers of samples of the smallest classes in words; of classes that are numbers, the task that they may be meant for."""
    smallest = [f"{name!r} ({number})" for name, number in sorted(counts.items(), key=lambda item: item[1])]
    hint = "; if the labels are measured values, take task='regression' (--task regression)" if all(map(is_number, counts)) else ""
    return f"{count(len(counts), 'class')}, the smallest first: {examples(smallest)}{hint}"


def _folder_to_give(table: Table) -> str:
    """Return a hint where the images of a table lie in several folders of one that was not given."""
    items = table.inputs if isinstance(table.inputs, list) else []
    folders = {os.path.dirname(item) for item in items if isinstance(item, str)}  # noqa: PTH120  # ten times faster
    return f"; its images are in {len(folders)} folders of {os.path.commonpath(folders)!r}: give that one" if len(folders) > 1 else ""
