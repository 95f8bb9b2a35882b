"""Labels that are likely wrong, by confident learning (Northcutt et al. 2021) as cleanlab has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from zoo.data.table import Array, Table
from zoo.errors import count, examples
from zoo.select.audit.findings.finding import Finding, found
from zoo.select.audit.reading.sources import Opened
from zoo.util.extras import require_extra

SURE = 0.8  # accuracy of the probe, below which its doubts mean little
WEAK = 0.3  # of the way from always naming the most frequent class to no error, below which a probe doubts nothing
MANY = 0.2  # share of doubted labels, above which the probe is wrong sooner than the labels


def suspects(probabilities: Array, targets: Array) -> Array:
    """Return the rows whose label is likely wrong, the least plausible first.

    Args:
        probabilities: ``(n, classes)`` from a model that was not fitted on the row; rows with NaN are passed over.
        targets: The given labels ``(n,)``.

    Raises:
        MissingExtraError: If cleanlab is not installed.
    """
    require_extra("audit", "finding wrong labels")
    from cleanlab.filter import find_label_issues  # type: ignore[import-not-found,import-untyped,unused-ignore]  # an extra

    known = np.flatnonzero(np.isfinite(probabilities).all(1))
    present = np.unique(targets[known])
    if len(present) < 2:
        return np.empty(0, dtype=np.int64)
    shares = probabilities[np.ix_(known, present)]
    shares = shares / np.maximum(shares.sum(1, keepdims=True), 1e-12)
    labels = np.searchsorted(present, targets[known])
    ranked = find_label_issues(labels, shares, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(known[np.asarray(ranked, dtype=np.int64)])


def wrong_labels(data: Opened, rows: Array, some: Table, probabilities: Array) -> tuple[list[Finding], dict[str, Any]]:
    """Return the likely wrong labels, and figures.

    Args:
        data: All data.
        rows: The rows of ``data`` that ``some`` has.
        some: The rows that the probabilities are of.
        probabilities: See ``suspects``.
    """
    targets = np.asarray(some.targets)
    known = np.isfinite(probabilities).all(1)
    if not known.any():
        return [_none_held_out()], {"samples": 0, "probe_accuracy": None, "majority": None, "suspects": 0}
    right = float((probabilities[known].argmax(1) == targets[known]).mean())
    majority = float(np.bincount(targets[known]).max() / known.sum())
    figures: dict[str, Any] = {"samples": int(known.sum()), "probe_accuracy": right, "majority": majority}
    if right - majority < WEAK * (1 - majority):
        return [_too_weak(right, majority)], figures | {"suspects": 0}
    ranked = suspects(probabilities, targets)
    return list(_finding(data, rows, some, probabilities, ranked, right)), figures | {"suspects": len(ranked)}


def _none_held_out() -> Finding:
    message = "no label is doubted: no sample can be held out with its class and its group on both sides, so no probe can judge one"
    return Finding("labels", "note", message, 0)


def _too_weak(right: float, majority: float) -> Finding:
    message = (
        f"no label is doubted: the probe is right on {right:.0%} of the samples, always naming the most frequent class on {majority:.0%}, "
        "so its doubts would say nothing; a backbone that tells the classes apart finds wrong labels (backbone=, --backbone)"
    )
    return Finding("labels", "note", message, 0)


def _finding(data: Opened, rows: Array, some: Table, probabilities: Array, ranked: Array, accuracy: float) -> Iterator[Finding]:
    if not len(ranked):
        return
    likely = probabilities[ranked].argmax(1)
    captions = [
        f"{some.classes[given]}, or {some.classes[other]} ({share:.2f})?"
        for given, other, share in zip(np.asarray(some.targets)[ranked], likely, probabilities[ranked, likely], strict=True)
    ]
    named = examples([f"{data.table.name_of(int(rows[row]))} ({caption})" for row, caption in zip(ranked, captions, strict=True)])
    weak = f" The probe is right on {accuracy:.0%} of the samples only: a stronger backbone finds fewer and better"
    doubt = weak if accuracy < SURE else ""
    message = f"{count(len(ranked), 'label')} of {len(some)} may be wrong, the least plausible first: {named}; look at them.{doubt}"
    yield found("labels", "note" if doubt and len(ranked) > MANY * len(some) else "warning", message, rows[ranked][:, None], captions)
