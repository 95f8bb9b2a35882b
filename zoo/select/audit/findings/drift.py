"""Drift between splits: a classifier that tells them apart (classifier two-sample test, Lopez-Paz & Oquab 2017)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from zoo.data.table import Array, Table
from zoo.select.audit.findings.finding import Finding
from zoo.select.audit.findings.shortcuts import auroc
from zoo.select.audit.reading.features import out_of_fold
from zoo.select.audit.reading.kept import Report
from zoo.select.audit.reading.sources import Opened

APART = 0.65  # AUROC above which two splits are different
CERTAIN = 1e-3  # chance of such an AUROC without a difference
MOST, FEWEST = 2000, 20  # samples of a split that are compared


def drift(data: Opened, table: Table, features: Array, *, seed: int, poll: Report) -> tuple[list[Finding], dict[str, Any]]:
    """Return the splits whose features a linear classifier tells from those of train, and the AUROC of each.

    Args:
        data: All data.
        table: The same rows, with equal ones in one group, which no fold divides.
        features: Features of all rows, NaN where a row could not be read.
        seed: Seed of the samples and the folds.
        poll: Called now and then; may raise to stop.
    """
    figures: dict[str, Any] = {}
    findings: list[Finding] = []
    good, rng = np.isfinite(features).all(1), np.random.default_rng(seed)
    first = data.names[0]
    for name in data.names[1:]:
        sides = [rng.permutation(np.flatnonzero(good & (data.splits == side)))[:MOST] for side in (first, name)]
        if min(map(len, sides)) < FEWEST:
            continue
        rows = np.sort(np.concatenate(sides))
        targets = (data.splits[rows] == name).astype(np.int64)
        some = replace(table.select(rows), targets=targets, classes=(first, name))
        found = told_apart(features[rows], some, seed=seed, poll=poll)
        figures[name] = {"against": first, "auroc": round(found.area, 4), "p": found.chance, "samples": [len(side) for side in sides]}
        findings += _finding(first, name, found.area, found.chance)
    return findings, figures


class Apart(NamedTuple):
    """How well a linear classifier tells two parts of a table apart.

    Attributes:
        area: AUROC of its probabilities for rows that it was not fitted on.
        chance: Chance of such an AUROC without a difference.
        known: The rows that have probabilities.
        shares: Their probabilities ``(rows, 2)``.
    """

    area: float
    chance: float
    known: Array
    shares: Array


def told_apart(features: Array, table: Table, *, seed: int, poll: Report) -> Apart:
    """Return the classifier two-sample test (Lopez-Paz & Oquab 2017).

    Args:
        features: Finite features ``(n, dim)`` of the rows.
        table: The rows, whose targets 0 and 1 are the parts.
        seed: Seed of the folds.
        poll: Called now and then; may raise to stop.
    """
    targets, shares = np.asarray(table.targets), out_of_fold(features, table, seed=seed, poll=poll)
    known = np.flatnonzero(np.isfinite(shares).all(1))
    area = auroc(shares[known], targets[known])
    return Apart(area, _chance(area, targets[known]), known, shares[known])


def _chance(area: float, targets: Array) -> float:
    """Return the chance of an AUROC this high without a difference, by the normal approximation of Mann & Whitney (1947)."""
    inside, total = int(targets.sum()), len(targets)
    outside = total - inside
    if not (inside and outside):
        return 1.0
    error = math.sqrt((total + 1) / (12 * inside * outside))
    return 0.5 * math.erfc((area - 0.5) / error / math.sqrt(2))


def _finding(first: str, name: str, area: float, chance: float) -> Iterator[Finding]:
    if area > APART and chance < CERTAIN:
        message = (
            f"1 split unlike {first}: a linear classifier tells {name} from it with AUROC {area:.3f} (p = {chance:.1g}); "
            f"what is measured on {first} may not hold there"
        )
        yield Finding("drift", "warning", message, 1)
