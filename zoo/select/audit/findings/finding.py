"""The result of a check of data: findings, figures, and the parts that were left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["leak", "warning", "note"]
LEVELS: tuple[Level, ...] = ("leak", "warning", "note")
MOST_ROWS = 200  # rows, or pairs of rows, of a finding in the record


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        check: The part of the check: ``duplicates``, ``groups``, ``classes``, ``files``, ``values``, ``near-duplicates``, ``labels``,
            ``shortcuts`` or ``drift``.
        level: ``leak`` where data of different splits are not independent, ``warning``, or ``note``.
        message: What was found, with its number first and the remedy last.
        count: How many samples, groups or classes.
        rows: Rows or pairs of rows of the samples, the worst first; at most ``MOST_ROWS``.
        captions: A few words for each of ``rows``; empty for none.
        more: How many further rows or pairs there are.
    """

    check: str
    level: Level
    message: str
    count: int
    rows: tuple[tuple[int, ...], ...] = ()
    captions: tuple[str, ...] = ()
    more: int = 0


def found(check: str, level: Level, message: str, rows: Iterable[Sequence[int]], captions: Iterable[str] = (), count: int = 0) -> Finding:
    """Return a finding about samples.

    Args:
        check: The part of the check.
        level: How bad it is.
        message: The message.
        rows: Rows or pairs of rows, the worst first.
        captions: A few words for each.
        count: How many there are; 0 counts the rows.
    """
    listed = [tuple(int(row) for row in each) for each in rows]
    more = max(0, len(listed) - MOST_ROWS)
    return Finding(check, level, message, count or len(listed), tuple(listed[:MOST_ROWS]), tuple(list(captions)[:MOST_ROWS]), more)


@dataclass
class Audit:
    """The result of a check of data.

    Attributes:
        source: Name of the data.
        reads: Kind of the inputs: ``image``, ``volume``, ``text`` or ``words``.
        splits: Number of samples of each split.
        classes: Number of samples of each class.
        findings: What was found, leaks first.
        figures: Numbers by the part of the check that measured them.
        left_out: Why parts of the check were not run.
        names: Names of the rows that the findings name, by row.
    """

    source: str
    reads: str
    splits: dict[str, int]
    classes: dict[str, int]
    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    @property
    def leaks(self) -> list[Finding]:
        """The findings that are leaks."""
        return [finding for finding in self.findings if finding.level == "leak"]

    def add(self, findings: Iterable[Finding]) -> None:
        """Add findings; they stay sorted, leaks first."""
        self.findings = sorted([*self.findings, *findings], key=lambda finding: LEVELS.index(finding.level))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; the samples of a finding are named."""
        rows = [[[self.names.get(row, f"row {row}") for row in each] for each in finding.rows] for finding in self.findings]
        findings = [asdict(finding) | {"samples": named} for finding, named in zip(self.findings, rows, strict=True)]
        plain = {"source": self.source, "reads": self.reads, "splits": self.splits, "classes": self.classes}
        return plain | {"leak": bool(self.leaks), "findings": findings, "figures": self.figures, "left_out": self.left_out}
