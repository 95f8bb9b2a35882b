"""Temperature scaling (Guo et al. 2017): one divisor of all logits, which changes probabilities and hardly any prediction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zoo.tasks.task import Task
from zoo.trust.outcome import Array

RANGE = (0.01, 100.0)  # of temperatures
_STEPS = 34  # of the search, each narrows the interval by the golden ratio; the last one is 1e-6 wide, in the logarithm


def best_temperature(task: Task, logits: Array, targets: Array) -> float:
    """Return the temperature with the lowest log loss on held-out data, 1 where no finite loss is found.

    A standard normal prior of its logarithm, which counts as one sample, holds back few samples, or ones that are all right: their
    loss alone would be lowest at 0. The loss is convex in the inverse temperature; the search is by golden sections.

    Args:
        task: A task whose metrics have ``loss``.
        logits: ``(n, outputs)``.
        targets: One row per sample.
    """

    def loss(log_temperature: float) -> float:
        return task.log_loss(logits / np.exp(log_temperature), targets) + log_temperature**2 / (2 * len(logits))

    if not np.isfinite(loss(0.0)):
        return 1.0
    return float(np.exp(_lowest(loss, *np.log(RANGE))))


def _lowest(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one valley is lowest."""
    share = (np.sqrt(5) - 1) / 2
    left, right = high - share * (high - low), low + share * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - share * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + share * (high - low)
            at_right = function(right)
    return (low + high) / 2


def tempered_threshold(threshold: float, temperature: float) -> float:
    """Return the probability after scaling that decides as a threshold does before."""
    odds = np.log(threshold / (1 - threshold)) / temperature
    return float(np.clip(1 / (1 + np.exp(-odds)), 1e-9, 1 - 1e-9))
