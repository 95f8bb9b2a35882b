"""Scores of what the classes of a pretrained head say about the labels: LEEP and NCE."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]


def leep(source_probabilities: npt.NDArray[np.floating], labels: Labels) -> float:
    """Return the log expected empirical prediction (Nguyen et al. 2020).

    The labels are predicted from the source head alone, by how often each label goes with each source class; the score is the
    mean log probability of the true one.

    Args:
        source_probabilities: ``(samples, source classes)``, rows that sum to 1.
        labels: ``(samples,)``, whole numbers.

    Returns:
        At most 0; higher is better.
    """
    given = np.asarray(source_probabilities, dtype=np.float64)
    numbers = np.unique(labels, return_inverse=True)[1]
    joint = np.eye(int(numbers.max()) + 1)[numbers].T @ given / len(given)
    conditional = joint / np.maximum(joint.sum(0), 1e-300)
    predicted = given @ conditional.T
    return float(np.log(predicted[np.arange(len(given)), numbers]).mean())


def nce(source_labels: Labels, labels: Labels) -> float:
    """Return the negative conditional entropy of the labels given the source classes (Tran et al. 2019).

    Args:
        source_labels: Likeliest source class of each sample, ``(samples,)``.
        labels: ``(samples,)``, whole numbers.

    Returns:
        From minus the log of the number of classes to 0, in nats; higher is better.
    """
    source, target = (np.unique(part, return_inverse=True)[1] for part in (source_labels, labels))
    joint = np.zeros((int(source.max()) + 1, int(target.max()) + 1))
    np.add.at(joint, (source, target), 1 / len(target))
    conditional = joint / joint.sum(1, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(conditional[seen])).sum())
