"""The order of the candidates, how sure it is, and the choice. No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.engine.inference.confidence_intervals import interval_of
from zoo.errors import examples
from zoo.select.ranking.agreement import agreements
from zoo.select.ranking.row import Judged, Row
from zoo.util.numbers import interval_text


@dataclass(frozen=True, repr=False)
class Ranking:
    """The result of ``rank``.

    Attributes:
        rows: The candidates, the best first: those that were fine-tuned, then by the probe; of fewer samples last.
        left_out: Why others were not scored, by name.
        metric: The metric of probe and tuning.
        lower: Whether its lowest value is the best.
        dir: The folder, with ``rank.json``, ``rank.png`` and a record per candidate.
        seconds: Time of all of it.
    """

    rows: Sequence[Row]
    left_out: Mapping[str, str]
    metric: str
    lower: bool
    dir: Path
    seconds: float

    def __repr__(self) -> str:
        return f"<Ranking of {len(self.rows)}: {self.reason}, in {str(self.dir)!r}>"

    @property
    def best(self) -> Row:
        """The first row."""
        return self.rows[0]

    @cached_property
    def ties(self) -> list[str]:
        """Names of the others that cannot be told apart from the best by the paired difference on the same samples."""
        return [row.name for row in self.rows[1:] if not self._worse(row, self.best)]

    @cached_property
    def dominated(self) -> list[str]:
        """Names of candidates that another beats by more than noise at no more latency and memory."""
        return [row.name for row in self.rows if any(self._dominates(other, row) for other in self.rows)]

    @cached_property
    def reason(self) -> str:
        """The choice in one or two sentences, with how sure it is."""
        judged = self.best.judged
        how = "fine-tuned" if self.best.tuned else "probed"
        said = f"{self.best.name} is the best: {how}, {self.metric} {interval_text(self.metric, judged.score, judged.low, judged.high)}"
        if len(self.rows) == 1:
            return f"{said}, and the only one{' that was scored' if self.left_out else ''}"
        if not self.ties:
            return f"{said}; it beats each other one by more than noise"
        fast = min((row for row in self.rows if row.name in (self.best.name, *self.ties)), key=lambda row: row.latency_ms)
        told = f"{said}; it cannot be told apart from {examples(self.ties)}"
        if fast is self.best:
            return told
        return f"{told}, which is faster" if len(self.ties) == 1 else f"{told}, of which {fast.name} is the fastest"

    @cached_property
    def agreement(self) -> list[dict[str, Any]]:
        """How well the order of each score, of size and of published accuracy agrees with that of tuning, or of the probe."""
        tuned = [row for row in self.rows if row.tuned]
        rows = tuned if len(tuned) >= 3 else [row for row in self.rows if row.samples == self.best.samples]
        judged = [row.judged if rows is tuned else row.probe for row in rows]
        sign = -1.0 if self.lower else 1.0
        scores = {name: np.array([row.scores.get(name, np.nan) for row in rows]) for name in rows[0].scores}
        known = {"size": [row.parameters for row in rows], "published accuracy": [row.accuracy or np.nan for row in rows]}
        scores |= {name: np.array(values, dtype=np.float64) for name, values in known.items()}
        if rows is tuned:
            scores = {"probe": sign * np.array([row.probe.score for row in rows])} | scores
        draws = None if any(not one.draws for one in judged) else sign * np.array([one.draws for one in judged])
        sizes = np.array([row.parameters for row in rows], dtype=np.float64)
        return agreements(scores, sign * np.array([one.score for one in judged]), sizes, draws)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        marks = {row.name: {"tied": row.name in self.ties, "dominated": row.name in self.dominated} for row in self.rows}
        return {
            "best": self.best.name,
            "reason": self.reason,
            "metric": self.metric,
            "rows": [row.to_dict() | marks[row.name] | {"difference": self._difference(row)} for row in self.rows],
            "agreement": {"with": "tuning" if sum(row.tuned is not None for row in self.rows) >= 3 else "probe", "scores": self.agreement},
            "left_out": dict(self.left_out),
            "seconds": round(self.seconds, 3),
            "dir": str(self.dir),
        }

    def _difference(self, row: Row) -> dict[str, float] | None:
        """Return how far a candidate is behind the best, with a 95 % interval, in units of the metric."""
        found = self._behind(row, self.best)
        return None if found is None or row is self.best else dict(zip(("mean", "low", "high"), found, strict=True))

    def _behind(self, row: Row, other: Row) -> tuple[float, float, float] | None:
        mine, theirs = (row.tuned, other.tuned) if row.tuned and other.tuned else (row.probe, other.probe)
        if row.samples != other.samples and mine is row.probe:
            return None
        return paired_difference(theirs, mine, lower=self.lower)

    def _worse(self, row: Row, other: Row) -> bool:
        """Return whether a candidate is behind another by more than noise; one that was dropped on fewer samples is."""
        if row.samples < other.samples:
            return True
        found = self._behind(row, other)
        return found is not None and found[1] > 0

    def _dominates(self, other: Row, row: Row) -> bool:
        cheaper = other.latency_ms <= row.latency_ms and other.memory <= row.memory
        return other is not row and cheaper and self._worse(row, other)


def paired_difference(one: Judged, other: Judged, *, lower: bool) -> tuple[float, float, float] | None:
    """Return by how much one result is better, with a 95 % interval over the same draws of the samples; None without draws."""
    sign = -1.0 if lower else 1.0
    if not one.draws or len(one.draws) != len(other.draws):
        return None
    gains = sign * (np.asarray(one.draws) - np.asarray(other.draws))
    ends = interval_of(gains)
    return None if ends is None else (sign * (one.score - other.score), *ends)


def in_order(rows: Sequence[Row], *, lower: bool) -> list[Row]:
    """Return the candidates, the best first; of equal ones the first stays first."""

    def key(row: Row) -> tuple[bool, int, float]:
        score = row.judged.score
        goodness = float("-inf") if score != score else -score if lower else score
        return row.tuned is None, -row.samples, -goodness

    return sorted(rows, key=key)


def same_reasons(left_out: Mapping[str, str]) -> list[list[str]]:
    """Return the names of candidates that were left out, those together whose reasons differ in their names only."""
    groups: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        groups.setdefault(without_names(name, reason), []).append(name)
    return list(groups.values())


def without_names(name: str, reason: str) -> str:
    """Return a reason without the names of its candidate and of the candidate's weights, which begin with that of the network."""
    network = name.rstrip("/").rpartition("/")[2].partition(".")[0]
    return re.sub(rf"{re.escape(network)}[\w.-]*", "NAME", reason) if network else reason
