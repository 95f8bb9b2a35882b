"""Metrics of token classification: by entity, as seqeval counts them (the CoNLL-2000 evaluation), and by word."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import MissingExtraError

OUTSIDE = "O"
Array = npt.NDArray[Any]


def entity_metrics(logits: Array, targets: Array, classes: Sequence[str]) -> dict[str, float]:
    """Return loss and accuracy by word, and precision, recall and F1 by entity.

    Args:
        logits: One array ``(words, classes)`` per sentence; NaN for a word that was cut off, which counts as outside.
        targets: One int64 array ``(words,)`` per sentence.
        classes: Names of the classes in the order of the logits, such as ``O``, ``B-Disease``, ``I-Disease``.

    Raises:
        MissingExtraError: If seqeval is not installed.
    """
    try:
        from seqeval.metrics import f1_score, precision_score, recall_score  # type: ignore[import-untyped]  # ships no types
    except ImportError as error:
        raise MissingExtraError("metrics by entity need the package seqeval; install zoo-hf, or: pip install seqeval") from error

    rows, truth = np.concatenate(list(logits)).astype(np.float64), np.concatenate(list(targets))
    guessed = label_words(logits, classes)
    expected = [[classes[k] for k in sentence] for sentence in targets]
    seen = ~np.isnan(rows).any(1)
    shifted = rows[seen] - rows[seen].max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(shifted)), truth[seen]]
    with warnings.catch_warnings():
        # No entity guessed: precision is 0 by definition here. Tags such as DESC instead of B-X are taken as entities.
        warnings.simplefilter("ignore", UserWarning)
        scores = [score(expected, guessed, zero_division=0) for score in (f1_score, precision_score, recall_score)]
    right = [one == other for words, others in zip(expected, guessed, strict=True) for one, other in zip(words, others, strict=True)]
    return {
        "loss": float(losses.mean()),
        **dict(zip(("f1", "precision", "recall"), map(float, scores), strict=True)),
        "accuracy": float(np.mean(right)),
        "majority": float(np.bincount(truth).max() / len(truth)),
    }


def label_words(logits: Array, classes: Sequence[str]) -> list[list[str]]:
    """Return the most likely class of each word of each sentence; of a word without logits the outside class."""
    outside = classes.index(OUTSIDE) if OUTSIDE in classes else 0
    chosen = (np.where(np.isnan(rows).any(1), outside, np.nan_to_num(rows).argmax(1)) for rows in logits)
    return [[classes[k] for k in sentence] for sentence in chosen]
