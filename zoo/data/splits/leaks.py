"""Samples and groups that are in training and in validation data alike: refused before a run, or written into its record."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.data.splits.duplicates import content_keys
from zoo.data.splits.train_valid import normal_group
from zoo.data.table import NO_GROUP, PIXELS, Table
from zoo.errors import LeakError, count, examples, fault_list

log = logging.getLogger("zoo")
_SHOWN = 4
_REMEDY = (
    "Split by group (leave out the split column, or give valid_split=), give other validation data, or go on with allow_leak=True "
    "(--allow-leak)."
)


@dataclass(frozen=True)
class Leak:
    """What training and validation data share.

    Attributes:
        samples: Samples in valid whose content is also in train.
        groups: Groups of valid with samples in train.
        group_samples: Samples in valid of these groups.
        tolerated: Whether equal samples are only told: texts, as short messages often repeat, and samples in memory.
        lines: What is shared in words, with examples.
    """

    samples: int
    groups: int
    group_samples: int
    tolerated: bool
    lines: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and examples for the record of a run."""
        return {"samples": self.samples, "groups": self.groups, "group_samples": self.group_samples, "examples": list(self.lines)}


def find_leak(train: Table, valid: Table) -> Leak | None:
    """Return the samples and groups that are on both sides, or None; group ids are compared by ``normal_group``."""
    ours, theirs = content_keys(train, valid)
    here = set(ours)
    both = [row for row, key in enumerate(theirs) if key in here]
    lines = []
    if both:
        overlap = f"{len(both)} of {count(len(valid), 'sample')} in valid {'is' if len(both) == 1 else 'are'} also in train"
        lines.append(f"{overlap}: {examples([valid.name_of(row) for row in both])}")
    pairs = group_pairs(train, valid)
    rows = sum(len(there) for _, there in pairs)
    if pairs:
        have = "has" if len(pairs) == 1 else "have"
        number = len(rows_by_group(valid.groups or ()))
        named = [_pair(train, here[0], valid, there[0]) for here, there in pairs]
        lines.append(
            f"{count(len(pairs), 'group')} of {number} in valid ({count(rows, 'sample')}) also {have} samples in train: {_some(named)}"
        )
    named_files = isinstance(valid.inputs, list) and any(isinstance(valid.inputs[row], str) for row in both)
    tolerated = train.reads not in PIXELS or not named_files  # in memory: a trial, or on purpose
    return Leak(len(both), len(pairs), rows, tolerated, tuple(lines)) if lines else None


def check_leak(train: Table, valid: Table, *, allow: bool, of_groups: str = "") -> dict[str, Any] | None:
    """Check that no file and no group is on both sides; return what is shared, for the record, or None.

    Equal texts are only logged, and so are equal samples in memory.

    Args:
        train: The training data.
        valid: The validation data.
        allow: Log a leak instead of refusing it.
        of_groups: Where the groups come from, if no column names them.

    Raises:
        LeakError: Listing pairs of samples.
    """
    leak = find_leak(train, valid)
    if leak is None:
        return None
    if not allow and (leak.groups or not leak.tolerated):
        lines = [*leak.lines, of_groups] if of_groups and leak.groups else leak.lines
        raise LeakError(fault_list("the validation data are not independent of the training data:", lines, _REMEDY))
    log.warning("%s: %s; this flatters the validation metrics", valid.source, "; ".join(leak.lines))
    return leak.to_dict()


def group_pairs(train: Table, valid: Table) -> list[tuple[list[int], list[int]]]:
    """Return the rows of both sides of each group that is on both."""
    here, there = rows_by_group(train.groups or ()), rows_by_group(valid.groups or ())
    return [(here[group], there[group]) for group in sorted(here.keys() & there.keys())]


def rows_by_group(groups: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of each group by its normal form; rows without an id belong to none."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        if not group.startswith(NO_GROUP):
            rows[normal_group(group)].append(row)
    return rows


def _pair(train: Table, row: int, valid: Table, other: int) -> str:
    left, right = (train.groups or ())[row], (valid.groups or ())[other]
    return f"group {left!r}: {train.name_of(row)} in train, group {right!r}: {valid.name_of(other)} in valid"


def _some(named: Sequence[str]) -> str:
    return "; ".join(named[:_SHOWN]) + (f"; … ({len(named) - _SHOWN} more)" if len(named) > _SHOWN else "")
