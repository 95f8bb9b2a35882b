"""The result of every reader: inputs and labels as in the source, before classes are encoded."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zoo.data.table import Array, pick

TEXTUAL = ("text", "words")


@dataclass(frozen=True)
class ReadOptions:
    """Options of a reader.

    Attributes:
        columns: Names of the columns of a table by role, such as ``{"file_name": "file", "group": "patient_id"}``.
        labelled: True requires labels, False ignores them, None takes them if the source has them.
        reads: Kind of the inputs: ``image``, ``volume``, ``text`` or ``words``; see ``zoo.data.table.Table``.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    labelled: bool | None = None
    reads: str = "image"

    @property
    def textual(self) -> bool:
        """Whether an input is a text, or a sentence as a list of words."""
        return self.reads in TEXTUAL


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
    """

    inputs: Sequence[Any]
    labels: Sequence[Any] | None
    classes: tuple[str, ...] | None = None
    groups: Sequence[str] | None = None
    splits: Sequence[str] | None = None
    source: str = "the data"

    def __len__(self) -> int:
        return len(self.inputs)

    def select(self, rows: Sequence[int] | Array) -> Raw:
        """Return the rows with these indices."""
        return replace(
            self,
            inputs=pick(self.inputs, rows),
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


def join(parts: Sequence[Raw], source: str) -> Raw:
    """Concatenate the rows of several readers; rows of an unlabelled source have the label None."""
    inputs = [part.inputs for part in parts]
    lists = all(isinstance(items, list) for items in inputs)
    labelled = any(part.labels is not None for part in parts)
    classes = dict.fromkeys(name for part in parts for name in part.classes or ())
    grouped = all(part.groups is not None for part in parts)
    return Raw(
        list(itertools.chain.from_iterable(inputs)) if lists else Chain(inputs),
        [label for part in parts for label in (part.labels if part.labels is not None else [None] * len(part))] if labelled else None,
        classes=tuple(classes) or None,
        groups=[group for part in parts for group in part.groups or ()] if grouped else None,
        splits=[split for part in parts for split in part.splits or ()],
        source=source,
    )
