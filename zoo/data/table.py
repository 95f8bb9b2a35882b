"""The table of a source: undecoded inputs, encoded targets, classes, groups and splits."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.errors import LISTED, DataError, count, did_you_mean, examples

log = logging.getLogger("zoo")
Array = npt.NDArray[Any]

SPLIT_WORDS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "validate", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
NO_GROUP = "no id, row "  # how the group of a row without an id starts
PIXELS = ("image", "volume")  # values of Table.reads whose inputs are decoded
_ODD_VALID = re.compile(r"(?:val|valid|validation|dev)[^a-z0-9]+[a-z0-9]")
_WORDS = re.compile(r"[^a-z0-9]+")
_ENDS = re.compile(r"(?:set|data|images|imgs|s)?\d*$")
SAMPLED_ROWS = 8  # samples that a table is judged by
_SHOWN = 40
_MAX_PATH = 4096
_CANONICAL = {word: name for name, words in SPLIT_WORDS.items() for word in words}


def split_word(name: object) -> str:
    """Return ``train``, ``valid`` or ``test`` for any of their spellings; other names are only stripped."""
    text = str(name).strip()
    return _CANONICAL.get(text.lower(), text)


def looks_like_valid(name: object) -> bool:
    """Return whether a name starts like a validation split and goes on, such as ``validation_matched``."""
    return bool(_ODD_VALID.match(str(name).strip().lower()))


def part_of_data(name: object) -> str:
    """Return ``train``, ``valid`` or ``test`` if a word of a name says so, as of ``training_set`` and ``seg_test``; else nothing."""
    for word in _WORDS.split(str(name).strip().lower()):
        plain = _ENDS.sub("", word)
        if found := next((_CANONICAL[one] for one in (word, plain) if one in _CANONICAL), "valid" if plain == "holdout" else ""):
            return found
    return ""


class View(Sequence[Any]):
    """Chosen items of a sequence in the given order, fetched lazily."""

    def __init__(self, items: Any, indices: Sequence[int] | Array) -> None:
        # Flattened, so that repeated selection adds no indirection.
        chosen: Array = np.asarray(indices, dtype=np.int64)
        nested = isinstance(items, View)
        self.items: Any = items.items if nested else items
        self.indices: Array = items.indices[chosen] if nested else chosen

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return View(self.items, self.indices[index])
        return self.items[int(self.indices[index])]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def pick(items: Sequence[Any], indices: Sequence[int] | Array) -> Sequence[Any]:
    """Return the chosen items: a list of a list or tuple, a lazy view of anything else."""
    return [items[int(i)] for i in indices] if isinstance(items, list | tuple) else View(items, indices)


def spread_rows(count: int) -> list[int]:
    """Return up to eight rows spread over ``count``, the first and the last among them."""
    return sorted({int(row) for row in np.linspace(0, count - 1, SAMPLED_ROWS)}) if count else []


class Origin(NamedTuple):
    """The table that rows were selected from, so that what is computed once for all of its rows serves every selection.

    Attributes:
        table: The whole table.
        rows: Indices of the selected rows in it.
    """

    table: Table
    rows: Array


class Part(NamedTuple):
    """The columns of one task in the targets of several tasks.

    Attributes:
        name: Name of the task.
        start: Its first column.
        stop: The column behind its last one.
        kind: ``class`` (a row has one 1), ``labels`` (any number of 1) or ``number``. Where the label is missing, all are NaN.
    """

    name: str
    start: int
    stop: int
    kind: Literal["class", "labels", "number"]

    def known(self, targets: Array) -> Array:
        """Return the rows of targets that have a label of this task."""
        return np.flatnonzero(~np.isnan(targets[:, self.start : self.stop]).all(1))


@dataclass(frozen=True, eq=False)
class Table:
    """A dataset whose inputs are not decoded yet.

    Attributes:
        inputs: Paths, PIL images, arrays or tensors, one per sample.
        targets: int64 ``(samples,)`` for single-label, float32 ``(samples, classes)`` for multi-label with
            NaN for missing labels, float32 ``(samples,)`` or ``(samples, values)`` for regression, None if unlabelled. Of several
            tasks float32 ``(samples, outputs)``: their columns side by side, one-hot for classes.
        classes: Class names in the order of the targets; empty for regression.
        groups: Group id per sample, such as a patient id, or None; splits never divide a group.
        splits: Name of the split per sample, or None.
        source: Name of the source, for messages.
        reads: Kind of the inputs: ``image``, ``volume``, ``text`` (a text or a pair of texts) or ``words`` (a list of words
            with a label for each; the targets are an array of int64 arrays).
        ready_made: Whether float tensors are inputs of the network as they are, see ``zoo.data.images.float_tensors``.
        origin: The table whose frozen features these rows share, see ``shared_origin``; None for a table of its own.
        leak: Of validation data what they share with the training data, see ``zoo.data.splits.leaks``; None for nothing.
        parts: The columns of each of several tasks; empty for one task.
        held_out: Of validation data whether zoo held them out of the training data.
    """

    inputs: Sequence[Any]
    targets: Array | None
    classes: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    source: str = "the data"
    reads: str = "image"
    ready_made: bool = False
    origin: Origin | None = None
    leak: Mapping[str, Any] | None = None
    parts: tuple[Part, ...] = ()
    held_out: bool = False

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        labels = "unlabelled" if self.targets is None else f"{len(self.classes)} classes" if self.classes else "labelled"
        return f"<Table: {count(len(self), 'sample')} of {self.source}, {labels}>"

    def select(self, indices: Sequence[int] | Array) -> Table:
        """Return the rows ``indices`` in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            inputs=pick(self.inputs, rows),
            targets=None if self.targets is None else self.targets[rows],
            groups=None if self.groups is None else tuple(self.groups[i] for i in rows),
            splits=None if self.splits is None else tuple(self.splits[i] for i in rows),
            origin=None if self.origin is None else self.origin._replace(rows=self.origin.rows[rows]),
        )

    def shared_origin(self) -> Table:
        """Return this table as the origin of every selection from it."""
        return replace(self, origin=Origin(replace(self, origin=None), np.arange(len(self))))

    def counts(self) -> dict[str, int]:
        """Return the number of samples (of words) per class, in the order of the classes; empty for regression or unlabelled.

        Beside other tasks a regression has the number of its targets.
        """
        if self.targets is None or not self.classes:
            return {}
        targets = flat_targets(self.targets)
        for part in self.parts:
            if part.kind == "number":
                targets = targets.copy()
                targets[:, part.start : part.stop] = ~np.isnan(targets[:, part.start : part.stop])
        numbers = np.bincount(targets, minlength=len(self.classes)) if targets.ndim == 1 else (targets > 0).sum(axis=0)
        return {name: int(number) for name, number in zip(self.classes, numbers, strict=True)}

    def missing(self) -> dict[str, int]:
        """Return the number of missing labels (NaN in multi-label targets) per class, of several tasks per task, that has any."""
        if self.targets is None or not self.classes or self.targets.ndim != 2:
            return {}
        if self.parts:
            absent = {part.name: len(self) - len(part.known(self.targets)) for part in self.parts}
            return {name: number for name, number in absent.items() if number}
        numbers = np.isnan(self.targets).sum(axis=0)
        return {name: int(number) for name, number in zip(self.classes, numbers, strict=True) if number}

    def name_of(self, index: int) -> str:
        """Return the name of a sample for messages: its path, or its row number."""
        return item_name(self.inputs, index)


def joined_groups(parts: Sequence[tuple[str, int, Sequence[str] | None]]) -> list[str] | None:
    """Return the group ids of all rows of several sources, in order; None where none has groups.

    Each row without an id is a group of its own. A source without groups among others that have them is logged.

    Args:
        parts: Name, number of rows, and group ids or None of each source.
    """
    if all(groups is None for *_, groups in parts):
        return None
    if bare := dict.fromkeys(name for name, rows, groups in parts if groups is None and rows):
        log.warning("%s: no groups (patients), unlike the rest of the data; each sample counts as a group of its own", ", ".join(bare))
    found = []
    for number, (_, rows, groups) in enumerate(parts):
        given = [f"{NO_GROUP}{row}" for row in range(rows)] if groups is None else groups
        found += [f"{NO_GROUP}{number}/{name.removeprefix(NO_GROUP)}" if name.startswith(NO_GROUP) else name for name in given]
    return found


def names_of(inputs: Sequence[Any], rows: Iterable[int]) -> list[str]:
    """Return a name for each input in a table of results: its path, its text, or ``row N``; nothing is decoded.

    Bytes of a file's name that are no UTF-8 are written as escapes, as files of results are in UTF-8.
    """
    if not isinstance(inputs, list | tuple):  # indexing a lazy sequence would decode the input
        return [f"row {row}" for row in rows]
    return [_result_name(inputs[row], row).encode("utf-8", "backslashreplace").decode() for row in rows]


def _result_name(item: Any, row: int) -> str:
    if isinstance(item, list | tuple) and all(isinstance(part, str) for part in item):  # words, or a pair of texts
        return _writable(" ".join(item))
    return _writable(os.fspath(item)) if isinstance(item, str | os.PathLike) else f"row {row}"


def _writable(text: str) -> str:
    """Return a text that UTF-8 can hold: half characters, of broken texts and of names of files, as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def flat_targets(targets: Array) -> Array:
    """Return the targets as one array of numbers; those of words concatenated."""
    if targets.dtype != object:
        return targets
    return np.concatenate(list(targets)) if len(targets) else np.empty(0, dtype=np.int64)


def item_name(inputs: Sequence[Any], index: int) -> str:
    """Return the path of an input, or ``row N`` counted from 0; for a text also its beginning."""
    # Indexing a lazy sequence would decode the input; only lists hold paths.
    item = inputs[index] if isinstance(inputs, list | tuple) else None
    if isinstance(item, str) and not _is_path(item):
        return f"row {index} ({item[:_SHOWN]!r}{'…' if len(item) > _SHOWN else ''})"
    return repr(os.fspath(item)) if isinstance(item, str | os.PathLike) else f"row {index}"


def _is_path(text: str) -> bool:
    """Return whether a string is a path and no text: it has no blank, or it exists."""
    return not any(letter.isspace() for letter in text) or (len(text) < _MAX_PATH and os.path.exists(text))  # noqa: PTH110  # ten times faster


def rows_of_split(splits: Sequence[str] | None, name: str, source: str) -> Array:
    """Return the indices of the rows of one split.

    Raises:
        DataError: If there is no such split.
    """
    if splits is None:
        raise DataError(f"{source} has no splits, so {name!r} cannot be chosen; give a folder with train/ and val/, or a split column")
    wanted = split_word(name)
    rows = np.flatnonzero([split_word(split) == wanted for split in splits])
    if not len(rows):
        known = sorted(set(splits))
        raise DataError(f"{source} has no split {name!r}{did_you_mean(name, known)}; it has: {examples(list(map(repr, known)), LISTED)}")
    return rows
