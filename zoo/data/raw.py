"""The result of every reader: inputs and labels as in the source, before classes are encoded."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zoo.data.table import Array, joined_groups, pick
from zoo.errors import OptionError
from zoo.util.typed_words import split_names

TEXTUAL = ("text", "words")


@dataclass(frozen=True)
class ReadOptions:
    """Options of a reader.

    Attributes:
        columns: Names of the columns of a table by role, such as ``{"file_name": "file", "group": "patient_id"}``; a list of
            them for ``label`` is the same as ``label_columns``.
        labelled: True requires labels, False ignores them, None takes them if the source has them.
        reads: Kind of the inputs: ``image``, ``volume``, ``text`` or ``words``; see ``zoo.data.table.Table``.
        label_columns: Columns of a table that hold the labels, one per class, also written ``a,b``; empty for a single column. Kept
            as a tuple.
        root: Folder of the files that a table names, or None for that of the table.
        channels: Channels of the images that the model takes.
        keep_unreadable: Whether inputs that cannot be read keep their row: files that do not exist, empty cells, and texts that are none.
        skip_broken: Whether items of a torch dataset that cannot be read stay without a label of their own, to be left out.
        tasks: Names of several tasks; ``label_columns`` then has the column of each, with its labels in any form. Without them the
            label may also be in a column of such a name.
        header_group: What is taken as the group instead of a column of ``columns``: an attribute of DICOM headers, or ``none``; see
            ``zoo.data.splits.patients``.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    labelled: bool | None = None
    reads: str = "image"
    label_columns: Sequence[str] = ()
    root: str | os.PathLike[str] | None = None
    channels: int = 3
    keep_unreadable: bool = False
    skip_broken: bool = False
    tasks: tuple[str, ...] = ()
    header_group: str = ""

    def __post_init__(self) -> None:
        # Columns of a DataFrame, and of a file without header, may be numbers.
        numbered = {role: str(name) if type(name) is int else name for role, name in self.columns.items()}
        object.__setattr__(self, "columns", numbered)
        odd = [f"{role}={name!r}" for role, name in self.columns.items() if not isinstance(name, str) and role != "label"]
        if odd:
            raise OptionError(f"columns= has {', '.join(odd)}; each role but the label has the name of one column")
        wanted = self.label_columns
        split = split_names(wanted, "label_columns") if isinstance(wanted, str) else map(str, wanted)
        object.__setattr__(self, "label_columns", tuple(split))
        listed = self.columns.get("label")
        if isinstance(listed, list | tuple):
            if self.label_columns:
                raise OptionError("label_columns and a list of columns for 'label' are given; leave one of them out")
            object.__setattr__(self, "label_columns", tuple(map(str, listed)))
            object.__setattr__(self, "columns", {role: name for role, name in self.columns.items() if role != "label"})
        elif listed is not None and self.label_columns:
            raise OptionError("label_columns and a column for 'label' are given; leave one of them out")
        if len(set(self.label_columns)) < len(self.label_columns):
            raise OptionError(f"label_columns names a column twice: {', '.join(self.label_columns)}")

    @property
    def named(self) -> str:
        """The given names of columns, for messages."""
        given = {"columns": dict(self.columns), "label_columns": list(self.label_columns)}
        return " and ".join(f"{name}={value}" for name, value in given.items() if value)

    @property
    def textual(self) -> bool:
        """Whether an input is a text, or a sentence as a list of words."""
        return self.reads in TEXTUAL


@dataclass(frozen=True, slots=True)
class Indicators:
    """The label of one sample in a column per class: 0, 1, NaN if missing, -1 if uncertain; or the numbers of a regression.

    Attributes:
        names: The columns, the same tuple for all samples of a source.
        values: Their values.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TaskLabels:
    """The labels of one sample for several tasks, each as the source has it; None or NaN where one is missing.

    Attributes:
        names: The tasks, the same tuple for all samples of a source.
        values: Their labels.
    """

    names: tuple[str, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Raw:
    """Rows of one source.

    Attributes:
        inputs: Paths, images, arrays or tensors.
        labels: One per input; None for an unlabelled row, or if all are unlabelled.
        classes: All class names that the source declares, including those without samples, or None.
        groups: Group id per input, or None.
        splits: Split per input, or None.
        source: For messages.
        bundle: Whether it is one file with the parts of a data set, of which evaluation and prediction read the test part.
    """

    inputs: Sequence[Any]
    labels: Sequence[Any] | None
    classes: tuple[str, ...] | None = None
    groups: Sequence[str] | None = None
    splits: Sequence[str] | None = None
    source: str = "the data"
    bundle: bool = False

    def __len__(self) -> int:
        return len(self.inputs)

    def select(self, rows: Sequence[int] | Array) -> Raw:
        """Return the rows with these indices."""
        return replace(
            self,
            inputs=self.inputs.take(rows) if isinstance(self.inputs, Chain) else pick(self.inputs, rows),
            labels=None if self.labels is None else [self.labels[int(row)] for row in rows],
            groups=None if self.groups is None else [self.groups[int(row)] for row in rows],
            splits=None if self.splits is None else [self.splits[int(row)] for row in rows],
        )

    def with_split(self, name: str) -> Raw:
        """Return the same rows, all in one split."""
        return replace(self, splits=[name] * len(self))


class Chain(Sequence[Any]):
    """Concatenation of sequences whose items are fetched lazily."""

    def __init__(self, parts: Sequence[Sequence[Any]]) -> None:
        self.parts = list(parts)
        self.ends = list(itertools.accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: Any) -> Any:
        position = range(len(self))[index]
        if isinstance(position, range):
            return [self[i] for i in position]
        part = bisect.bisect_right(self.ends, position)
        return self.parts[part][position - (self.ends[part - 1] if part else 0)]

    def take(self, rows: Sequence[int] | Array) -> Sequence[Any]:
        """Return the rows with these indices; those of one part are taken from it, and all of them in order are the part itself."""
        chosen = np.asarray(rows, dtype=np.int64)
        parts = np.searchsorted(self.ends, chosen, side="right")
        if not len(chosen) or (parts != parts[0]).any():
            return pick(self, chosen)
        part = self.parts[int(parts[0])]
        own = chosen - (self.ends[int(parts[0])] - len(part))
        return part if np.array_equal(own, np.arange(len(part))) else pick(part, own)


def join(parts: Sequence[Raw], source: str) -> Raw:
    """Concatenate the rows of several readers; rows of an unlabelled source have the label None."""
    inputs = [part.inputs for part in parts]
    lists = all(isinstance(items, list) for items in inputs)
    labelled = any(part.labels is not None for part in parts)
    classes = dict.fromkeys(name for part in parts for name in part.classes or ())
    return Raw(
        list(itertools.chain.from_iterable(inputs)) if lists else Chain(inputs),
        [label for part in parts for label in (part.labels if part.labels is not None else [None] * len(part))] if labelled else None,
        classes=tuple(classes) or None,
        groups=joined_groups([(part.source, len(part), part.groups) for part in parts]),
        splits=[split for part in parts for split in part.splits or ()],
        source=source,
    )
