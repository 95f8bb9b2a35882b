"""Agreement of the orders of several scores: Kendall's tau, over all pairs and over pairs of like size. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.engine.inference.confidence_intervals import interval_of

Array = npt.NDArray[np.float64]
LIKE_SIZE = 2.0  # largest ratio of the parameters of two candidates of like size
LEAST = 3  # candidates for a correlation
LEAST_ALIKE = 3  # pairs of like size for one, which a band of three candidates has


class Agreement(NamedTuple):
    """Agreement of one order with that of a reference.

    Attributes:
        tau: Kendall's tau-b over all pairs (Kendall 1945), in [-1, 1]; NaN where it is undefined.
        low: Lower end of its 95 % interval over the draws of the reference, NaN without draws.
        high: Upper end.
        pairs: Number of pairs.
        tau_like_size: The same over pairs of which neither has more than twice the parameters of the other; NaN for fewer than three
            such pairs, as one or two say nothing.
        pairs_like_size: Number of these pairs.
    """

    tau: float
    low: float
    high: float
    pairs: int
    tau_like_size: float
    pairs_like_size: int


def agreement(score: Array, reference: Array, sizes: Array, draws: Array | None = None) -> Agreement:
    """Return how well the order of a score agrees with that of a reference; candidates without a score are left out.

    A fixed list by size beats most scores (2510.06448), which shows over all pairs; the value of a score shows among candidates of
    like size.

    Args:
        score: ``(candidates,)``, higher is better.
        reference: ``(candidates,)``, higher is better.
        sizes: Parameters, ``(candidates,)``, above 0.
        draws: The reference in the draws of a bootstrap over samples, ``(candidates, draws)``, or None.
    """
    known = np.isfinite(score) & np.isfinite(reference)
    score, reference, sizes = score[known], reference[known], sizes[known]
    one, other = np.triu_indices(len(score), 1)
    signs = np.sign(score[one] - score[other])
    ours = np.sign(reference[one] - reference[other])
    alike = np.abs(np.log(sizes[one] / sizes[other])) <= np.log(LIKE_SIZE) + 1e-9
    low = high = float("nan")
    if draws is not None and len(one):
        drawn = draws[known]
        taus = np.array([_tau(signs, column) for column in np.sign(drawn[one] - drawn[other]).T])
        low, high = interval_of(taus) or (low, high)
    number = int(alike.sum())
    within = _tau(signs[alike], ours[alike]) if number >= LEAST_ALIKE else float("nan")
    return Agreement(_tau(signs, ours), low, high, len(one), within, number)


def _tau(one: Array, other: Array) -> float:
    weight = np.sqrt(np.abs(one).sum() * np.abs(other).sum())
    return float((one * other).sum() / weight) if weight else float("nan")


def agreements(scores: Mapping[str, Array], reference: Array, sizes: Array, draws: Array | None) -> list[dict[str, Any]]:
    """Return a row for JSON per score that at least ``LEAST`` candidates have; NaN becomes None."""
    rows = []
    for name, score in scores.items():
        if (np.isfinite(score) & np.isfinite(reference)).sum() >= LEAST:
            found = agreement(score, reference, sizes, draws)._asdict()
            rows.append({"score": name} | {key: None if value != value else value for key, value in found.items()})
    return rows
