"""Baselines: the metrics of always giving the same answer, and of guessing."""

from __future__ import annotations

import numpy as np

from zoo.tasks.multi_label import MultiLabel
from zoo.tasks.regression import Regression
from zoo.tasks.single_label import SingleLabel
from zoo.tasks.task import Task
from zoo.tasks.token_classification import TokenClassification
from zoo.trust.metric_table import Metric
from zoo.trust.outcome import Array

GUESSES = 20  # draws whose mean is the figure of guessing
_CELLS = 4_000_000  # values of all draws
_WORDS = 100_000  # words of all draws: seqeval takes 1.5 seconds for them


def baselines(task: Task, targets: Array, classes: tuple[str, ...], outputs: int, more: dict[str, Metric]) -> dict[str, dict[str, float]]:
    """Return the metrics of the ``prior`` and of ``random`` answers; empty for a task that has none.

    The prior gives each sample the frequencies of the classes among these very targets, so it names the most frequent class; of
    labels the frequency of each, of words that among all words; of numbers their mean. Random answers are uniform scores, the mean of
    several draws; of numbers the target of another sample.

    Args:
        task: The task.
        targets: Of the samples that are measured.
        classes: Names of the classes.
        outputs: Number of outputs.
        more: Metrics beside those of the task.
    """
    if not isinstance(task, SingleLabel | MultiLabel | Regression | TokenClassification) or not len(targets):
        return {}
    by_word = isinstance(task, TokenClassification)
    answered = np.concatenate(targets) if by_word else targets  # what is answered one by one
    rng = np.random.default_rng(0)
    draws = int(np.clip((_WORDS if by_word else _CELLS // outputs) // len(answered), 1, GUESSES))

    def measured(logits: Array) -> dict[str, float]:
        return _measured(task, _by_sentence(logits, targets) if by_word else logits, targets, classes, more)

    guesses = [measured(_guess(task, answered, outputs, rng)) for _ in range(draws)]
    random = {name: float(np.mean([guess[name] for guess in guesses])) for name in guesses[0] if all(name in guess for guess in guesses)}
    return {"prior": measured(_prior(task, answered, outputs)), "random": random}


def _by_sentence(logits: Array, targets: Array) -> Array:
    """Return the rows of all words as an array of arrays ``(words, outputs)``, one per sentence."""
    found = np.empty(len(targets), dtype=object)
    found[:] = np.split(logits, np.cumsum([len(each) for each in targets])[:-1])
    return found


def _measured(task: Task, logits: Array, targets: Array, classes: tuple[str, ...], more: dict[str, Metric]) -> dict[str, float]:
    found = task.metrics(logits, targets, classes) | {name: metric.value(task, logits, targets) for name, metric in more.items()}
    return {name: value for name, value in found.items() if np.isfinite(value) and name != "majority"}


def _prior(task: Task, targets: Array, outputs: int) -> Array:
    if not task.has_classes:
        return np.tile(np.asarray(targets, dtype=np.float64).reshape(len(targets), outputs).mean(0), (len(targets), 1))
    if task.thresholded:
        known = ~np.isnan(targets)
        shares = np.clip(np.where(known, targets, 0).sum(0) / np.maximum(known.sum(0), 1), 1e-6, 1 - 1e-6)
        return np.tile(np.log(shares / (1 - shares)), (len(targets), 1))
    shares = np.bincount(targets, minlength=outputs) / len(targets)
    return np.tile(np.log(np.maximum(shares, 1e-12)), (len(targets), 1))


def _guess(task: Task, targets: Array, outputs: int, rng: np.random.Generator) -> Array:
    if not task.has_classes:
        return rng.permutation(np.asarray(targets, dtype=np.float64).reshape(len(targets), outputs))
    shares = rng.random((len(targets), outputs))
    return np.log(shares / (1 - shares)) if task.thresholded else np.log(shares)
