"""Selective prediction: the error among the samples that a model is most confident about (Geifman and El-Yaniv 2017)."""

from __future__ import annotations

import numpy as np

from zoo.trust.outcome import Array, Outcome


def risk_coverage(outcome: Outcome) -> tuple[Array, Array, Array]:
    """Return for each confidence, from the highest: the share of samples that have it or more, the error among them, and itself."""
    order = np.argsort(-outcome.confidence, kind="stable")
    confidence = outcome.confidence[order]
    ends = np.flatnonzero(np.append(np.diff(confidence) != 0, True))  # equal confidences are kept together
    kept = ends + 1
    wrong = np.cumsum(~outcome.right[order])[ends]
    return kept / max(len(order), 1), wrong / kept, confidence[ends]
