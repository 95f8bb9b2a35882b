"""Token classification; metrics by entity as in seqeval (the CoNLL-2000 evaluation)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from zoo.errors import MissingExtraError
from zoo.tasks.labels.words import encode_by_word
from zoo.tasks.scores import softmax
from zoo.tasks.task import Array, Task

if TYPE_CHECKING:
    from torch import Tensor

OUTSIDE = "O"
IGNORED = -100  # target of tokens without a label


class TokenClassification(Task):
    """Cross entropy on logits ``(batch, tokens, classes)`` and class indices ``(batch, tokens)``, without targets of -100."""

    name = "token-classification"
    monitors = ("f1", "precision", "recall", "accuracy", "loss")
    head = "tokens"
    per_token = True
    least_outputs = 2
    convex = True
    # One rate for all groups: with a decay the lower ones learn too little about single words. See docs/defaults.md.
    recipe: ClassVar[tuple[str, Mapping[str, Any]] | None] = ("layer-decay", MappingProxyType({"layer_decay": 1.0}))
    useless: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"balanced_sampling": "it draws whole samples, and a sentence has labels of several classes; use class_weights"}
    )
    card: ClassVar[Mapping[str, str]] = MappingProxyType({"text": "token-classification"})

    def encode(
        self, labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
    ) -> tuple[Array, tuple[str, ...]]:
        """Return an array of int64 arrays, one number per word."""
        return encode_by_word(labels, inputs, classes, source)

    def loss(self, logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        """Return the sum of the cross entropies of all tokens with a label."""
        from torch.nn import functional

        logits, targets = logits.flatten(0, 1), targets.flatten()
        return functional.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing, reduction="sum")

    def weight(self, targets: Tensor, weights: Tensor | None = None) -> Tensor | float:
        """Return the number of tokens with a label, or the sum of their weights."""
        counted = targets != IGNORED
        found = counted.float() if weights is None else weights[targets.clamp(min=0)] * counted
        return found.sum().clamp(min=1e-12)

    def metrics(self, logits: Array, targets: Array, classes: Sequence[str]) -> dict[str, float]:
        """Return loss and accuracy by word, and f1, precision and recall by entity."""
        return entity_metrics(list(logits), list(targets), classes)

    def probabilities(self, logits: Array) -> Array | None:
        """Return an array of arrays, the softmax of each word; NaN for a word that was cut off."""
        result = np.empty(len(logits), dtype=object)
        result[:] = [softmax(rows).astype(np.float32) for rows in logits]
        return result

    def decode(self, logits: Array, labels: Sequence[Any]) -> list[Any]:
        """Return a list with the label of each word; see ``label_words``."""
        return label_words(list(logits), labels)


def entity_metrics(logits: Sequence[Array], targets: Sequence[Array], classes: Sequence[str]) -> dict[str, float]:
    """Return loss and accuracy by word, and precision, recall and F1 by entity.

    Args:
        logits: One array ``(words, classes)`` per sentence; NaN for a word that was cut off, which counts as outside, or where no
            class is ``O`` is left out.
        targets: One int64 array ``(words,)`` per sentence.
        classes: Names of the classes in the order of the logits, such as ``O``, ``B-Disease``, ``I-Disease``.

    Raises:
        MissingExtraError: If seqeval is not installed.
    """
    try:
        from seqeval.metrics import f1_score, precision_score, recall_score  # type: ignore[import-untyped]  # ships no types
    except ImportError as error:
        raise MissingExtraError("metrics by entity need the package seqeval; install zoo-hf, or: pip install seqeval") from error

    if OUTSIDE not in classes:
        logits, targets = _without_cut(logits, targets)
    rows, truth = np.concatenate(logits).astype(np.float64), np.concatenate(targets)
    guessed = label_words(logits, classes)
    expected = [[classes[k] for k in sentence] for sentence in targets]
    seen = ~np.isnan(rows).any(1)
    shifted = rows[seen] - rows[seen].max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(shifted)), truth[seen]]
    with warnings.catch_warnings():
        # Precision without predicted entities is 0 by definition. Tags such as DESC instead of B-X count as entities.
        warnings.simplefilter("ignore", UserWarning)
        scores = [score(expected, guessed, zero_division=0) for score in (f1_score, precision_score, recall_score)]
    right = [one == other for words, others in zip(expected, guessed, strict=True) for one, other in zip(words, others, strict=True)]
    return {
        "loss": float(losses.mean()),
        **dict(zip(("f1", "precision", "recall"), map(float, scores), strict=True)),
        "accuracy": float(np.mean(right)),
        "majority": float(np.bincount(truth).max() / len(truth)),
    }


def _without_cut(logits: Sequence[Array], targets: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Return logits and targets of the words that have logits."""
    seen = [~np.isnan(rows).any(1) for rows in logits]
    return [rows[mask] for rows, mask in zip(logits, seen, strict=True)], [rows[mask] for rows, mask in zip(targets, seen, strict=True)]


def label_words(logits: Sequence[Array], classes: Sequence[Any]) -> list[list[Any]]:
    """Return the most likely class of each word of each sentence; of a word without logits ``O``, or empty if no class is that."""
    outside = OUTSIDE if OUTSIDE in classes else ""
    found = []
    for rows in logits:
        cut: list[bool] = np.asarray(np.isnan(rows).any(1)).tolist()
        found.append([outside if gone else classes[k] for k, gone in zip(np.nan_to_num(rows).argmax(1), cut, strict=True)])
    return found
