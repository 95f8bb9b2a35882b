"""Cross-validation folds of a labelled table: stratified by class, by group where there are groups."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from zoo.data.splits.duplicates import equal_numbers, equal_rows, equal_samples, merged_groups
from zoo.data.splits.stratified import shuffled_folds, stratified_folds
from zoo.data.splits.train_valid import is_single_label, normal_group
from zoo.data.table import Array, Table
from zoo.data.texts.encode import TextWindow
from zoo.errors import DataError, LeakError, OptionError, count, examples, fault_message
from zoo.util.numbers import is_whole

log = logging.getLogger("zoo")
FOLDS = 5


class Fold(NamedTuple):
    """One division of a table.

    Attributes:
        repeat: How often the held-out rows were held out before.
        train: Indices of the rows to train on.
        held_out: Indices of the rows to measure on.
    """

    repeat: int
    train: Array
    held_out: Array


def cross_validation_folds(
    table: Table, folds: Any = FOLDS, *, repeats: int = 1, seed: int = 0, allow_leak: bool = False, flag: str = "--folds"
) -> list[Fold]:
    """Return the folds of a cross-validation.

    Classes are spread evenly where each sample has one; groups, and samples of equal content, are never divided.

    Args:
        table: Labelled rows.
        folds: Their number; or a splitter of scikit-learn, or pairs of arrays (train, held out), which are taken as they are.
        repeats: Number of divisions, each with a seed of its own.
        seed: Seed of the first division.
        allow_leak: Whether folds that are given may divide a group.
        flag: What gives their number on the command line, for messages.

    Raises:
        LeakError: If folds that are given divide a group.
        DataError: If there are fewer samples, groups, or samples of the largest class than folds, or a splitter fails.
        OptionError: If a number is out of range.
    """
    if not is_whole(folds):
        if repeats != 1:
            raise OptionError("repeats is for a number of folds; a splitter repeats by itself, such as RepeatedStratifiedKFold")
        given = _given(table, folds)
        _check_whole_groups(table, folds, given, allow_leak=allow_leak)
        return given
    check_numbers(folds, repeats)
    table = with_equal_in_groups(table, equal_samples(table, checked=True))
    groups = _groups(table)
    targets = np.asarray(table.targets) if is_single_label(table) else None
    _check_enough(table, folds, targets, groups, flag)
    found = []
    for repeat in range(repeats):
        parts = _parts(len(table), targets, groups, folds, (seed + repeat) % 2**32)
        found += [Fold(repeat, train, held) for train, held in parts]
    return found


def digest_of(folds: Iterable[Fold]) -> str:
    """Return a digest of the rows of all folds; equal ones have equal folds."""
    digest = hashlib.sha256()
    for fold in folds:
        digest.update(np.asarray(fold.train, dtype=np.int64).tobytes() + b"/" + np.asarray(fold.held_out, dtype=np.int64).tobytes())
    return digest.hexdigest()


def division_name(table: Table, folds: Any) -> str:
    """Return how a table is divided, in words."""
    if not is_whole(folds):
        return type(folds).__name__ if hasattr(folds, "split") else "given folds"
    stratified = "stratified by class" if is_single_label(table) else ""
    grouped = "by group" if table.groups is not None else ""
    return " and ".join(filter(None, (stratified, grouped))) or "at random"


def check_numbers(folds: Any, repeats: Any) -> None:
    """Check the number of folds, where it is one, and of repeats.

    Raises:
        OptionError: Naming both where both are wrong.
    """
    faults = [f"folds is {folds}; it must be at least 2"] if is_whole(folds) and folds < 2 else []
    if isinstance(folds, str | bool | float):
        faults.append(f"folds is {folds!r}; it must be a whole number, 2 or more, a splitter of scikit-learn, or pairs of rows")
    if not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 1:
        faults.append(f"repeats is {repeats!r}; it must be a whole number, 1 or more")
    if faults:
        raise OptionError(fault_message("the folds cannot be made:", faults))


def with_equal_in_groups(table: Table, equal: Array | None) -> Table:
    """Return a table in which samples of equal content are of one group, with the groups that they are in.

    Args:
        table: The rows.
        equal: A number per row, the same for equal ones, as ``equal_samples`` gives it; None if all differ.
    """
    if equal is None or len(np.unique(equal)) < 2:  # such as a trial with zeros
        return table
    groups = (
        [str(number) for number in equal] if table.groups is None else merged_groups([normal_group(one) for one in table.groups], equal)
    )
    return replace(table, groups=tuple(groups))


def _check_enough(table: Table, folds: int, targets: Array | None, groups: Array | None, flag: str) -> None:
    """Check that every fold gets a sample, and log classes that not every fold can hold out.

    Raises:
        DataError: If one gets none.
    """
    if (units := len(table) if groups is None else len(np.unique(groups))) < folds:
        what = "sample" if groups is None else "group"
        raise DataError(f"{table.source} has {count(units, what)}, fewer than {folds} folds; take at most folds={max(units, 2)} ({flag})")
    if targets is None:
        return
    numbers = np.bincount(targets, minlength=len(table.classes))
    if numbers.max() < folds:
        remedy = f"take at most folds={max(int(numbers.max()), 2)} ({flag})"
        raise DataError(f"{table.source}: the largest class has {count(int(numbers.max()), 'sample')}, fewer than {folds} folds; {remedy}")
    units_of = numbers if groups is None else np.array([len(np.unique(groups[targets == k])) for k in range(len(numbers))])
    what = "sample" if groups is None else "group"
    rare = [f"{name!r} ({count(int(n), what)})" for name, n in zip(table.classes, units_of, strict=True) if 1 < n < folds]
    single = [f"{name!r}" for name, n in zip(table.classes, units_of, strict=True) if n == 1]
    if rare:
        line = "%s: fewer than %d folds can hold out %s; the other folds do not measure these classes"
        log.warning(line, table.source, folds, examples(rare))
    if single:
        line = "%s: a single %s has %s; the fold that holds it out is trained without the class"
        log.warning(line, table.source, what, examples(single))


def _given(table: Table, splitter: Any) -> list[Fold]:
    """Return the folds of a splitter of scikit-learn, or given pairs of rows.

    Raises:
        OptionError: If it is a class and not an object of it.
        DataError: If the splitter fails, or gives no folds that can be used; all faults at once.
    """
    if isinstance(splitter, type):
        raise OptionError(f"folds is the class {splitter.__name__}; give an object of it, such as folds={splitter.__name__}()")
    targets = table.targets if table.targets is not None and table.targets.dtype != object else None
    try:
        if hasattr(splitter, "split"):
            with warnings.catch_warnings():  # groups that are ignored are checked here
                warnings.filterwarnings("ignore", message="The groups parameter is ignored", category=UserWarning)
                pairs = list(splitter.split(np.zeros(len(table)), targets, _groups(table)))
        else:
            pairs = [tuple(pair) for pair in splitter]
        found = [(_rows(train, len(table)), _rows(held, len(table))) for train, held in pairs]
    except (TypeError, ValueError) as error:
        remedy = "give a number, a splitter of scikit-learn, or pairs (train rows, held-out rows); groups come from a column (group=…)"
        raise DataError(f"{table.source}: folds={splitter!r} cannot divide {count(len(table), 'sample')}: {error}; {remedy}") from error
    faults = [f"a cross-validation needs 2 folds, and got {len(found)}"] if len(found) < 2 else []
    for number, (train, held) in enumerate(found):
        faults += [f"fold {number}: {fault}" for fault in _faults(train, held, len(table))]
    if faults:
        raise DataError(f"{table.source}: folds={type(splitter).__name__}: {examples(faults)}")
    seen = np.zeros(len(table), dtype=np.int64)
    folds = []
    for train, held in found:
        folds.append(Fold(int(seen[held].max()), train, held))
        seen[held] += 1
    return folds


def _rows(given: Any, rows: int) -> Array:
    """Return the row numbers of one side of a fold, which may be given as a mask."""
    found = np.asarray(given)
    if found.dtype != bool:
        return found.astype(np.int64)
    if found.shape != (rows,):
        raise ValueError(f"a mask has the shape {found.shape}, and there are {rows} rows")
    return np.flatnonzero(found)


def _check_whole_groups(table: Table, splitter: Any, folds: Sequence[Fold], *, allow_leak: bool) -> None:
    """Check that no fold has samples of a group on both sides.

    Raises:
        LeakError: Naming some, unless ``allow_leak``, which warns of them.
    """
    if (groups := _groups(table)) is None:
        return
    divided = np.unique(np.concatenate([np.intersect1d(groups[fold.train], groups[fold.held_out]) for fold in folds]))
    if not len(divided):
        return
    names = examples([repr(str(table.groups[int(np.argmax(groups == one))])) for one in divided]) if table.groups else "texts in windows"
    line = f"{table.source}: folds={type(splitter).__name__} divides {count(len(divided), 'group')} of {len(np.unique(groups))}: {names}"
    if not allow_leak:
        raise LeakError(f"{line}; take folds=GroupKFold(…), StratifiedGroupKFold(…) or a number, or pass allow_leak=True")
    log.warning("%s; the scores are too good, as samples of one group are on both sides", line)


def _faults(train: Array, held: Array, rows: int) -> list[str]:
    faults = [f"{name} has no rows" for name, part in (("train", train), ("held out", held)) if not len(part)]
    if any(len(part) and not 0 <= part.min() <= part.max() < rows for part in (train, held)):
        faults.append(f"a row is outside 0 to {rows - 1}")
    if both := len(np.intersect1d(train, held)):
        faults.append(f"{count(both, 'row')} in train and held out")
    return faults


def folds_of(table: Table, seed: int, folds: int = FOLDS) -> list[tuple[Array, Array]]:
    """Return training and held-out rows of each fold, of as many folds as the samples allow.

    No group is on both sides, no window of a text, and no sample of equal content, such as those of a rare class that is repeated. A
    class whose samples are all in one fold is not held out, because a model that was trained without it says nothing about it.

    Args:
        table: Labelled rows.
        seed: Seed of the division.
        folds: At most so many; fewer samples or groups give fewer.

    Returns:
        Pairs of row indices; none where the samples cannot be divided, such as a single sample per class.
    """
    equal = equal_numbers(len(table), equal_rows(table))
    if equal is None or len(first := np.unique(equal)) < 2:
        return _folds_as_possible(table, seed, folds)
    if _groups(table) is not None:
        return _folds_as_possible(with_equal_in_groups(table, equal), seed, folds)
    # One of each is divided, and the others follow it, as groups of one sample would take seconds.
    divided = _folds_as_possible(table.select(first), seed, folds)
    return [(np.flatnonzero(np.isin(equal, first[train])), np.flatnonzero(np.isin(equal, first[held]))) for train, held in divided]


def _folds_as_possible(table: Table, seed: int, folds: int) -> list[tuple[Array, Array]]:
    groups = _groups(table)
    units = len(table) if groups is None else int(groups.max(initial=-1)) + 1
    if min(units, folds) < 2:
        return []
    targets = np.asarray(table.targets) if is_single_label(table) else None
    folds = min(units, folds) if targets is None else min(units, folds, int(np.bincount(targets).max()))
    if folds < 2:
        return []
    parts = _parts(len(table), targets, groups, folds, seed % 2**32)  # all that numpy's old generator takes
    if targets is not None:
        parts = [(train, held[np.isin(targets[held], targets[train])]) for train, held in parts]
    return [(train, held) for train, held in parts if len(train) and len(held)]


def _parts(count: int, targets: Array | None, groups: Array | None, folds: int, seed: int) -> list[tuple[Array, Array]]:
    if groups is None or targets is None:
        if targets is not None:
            parts = stratified_folds(targets, folds, seed)
        else:
            units = np.arange(count) if groups is None else groups
            parts = [np.flatnonzero(np.isin(units, own)) for own in shuffled_folds(int(units.max()) + 1, folds, seed)]
        return [(np.setdiff1d(np.arange(count), held), held) for held in parts]
    from sklearn.model_selection import StratifiedGroupKFold  # type: ignore[import-untyped]  # ships no types

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes with fewer samples than folds, which are dealt with above
        return list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(np.zeros(count), targets, groups))


def _groups(table: Table) -> Array | None:
    """Return the number of the group of each row: its own group, or the text that it is a window of; None without groups."""
    if table.groups is not None:
        return _numbers([normal_group(group) for group in table.groups])
    if len(table) and isinstance(table.inputs[0], TextWindow):
        return _numbers([window.text for window in table.inputs])
    return None


def _numbers(names: Sequence[Any]) -> Array:
    return np.unique(names, return_inverse=True)[1]
