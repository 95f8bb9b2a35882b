"""Validators: how good the predictions for a target domain are likely to be, without its labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.tasks import scores

Array = npt.NDArray[Any]
BLOCK = 1024  # rows of the matrix of similarities at a time
MOST = 4000  # rows whose neighbours are looked at after each epoch
_TINY = 1e-12


def softmax(logits: Array) -> Array:
    """Return probabilities ``(n, classes)`` in float64."""
    return scores.softmax(np.asarray(logits, dtype=np.float64))


def entropies(probabilities: Array) -> Array:
    """Return the entropy of each prediction ``(n,)`` in nats.

    Args:
        probabilities: ``(n, classes)``.
    """
    return np.asarray(-(probabilities * np.log(probabilities + _TINY)).sum(1))


def mean_entropy(probabilities: Array) -> float:
    """Return the mean entropy of predictions in nats; low where they are sure (Morerio et al. 2018).

    Args:
        probabilities: ``(n, classes)``.
    """
    return float(entropies(probabilities).mean())


def infomax(probabilities: Array) -> float:
    """Return the mutual information of inputs and predictions in nats; high where they are sure and of many classes.

    Bridle et al. 1991; as a validator Musgrave et al. 2022.

    Args:
        probabilities: ``(n, classes)``.
    """
    mean = probabilities.mean(0)
    return float(-(mean * np.log(mean + _TINY)).sum()) - mean_entropy(probabilities)


def informations(probabilities: Array) -> Array:
    """Return the Kullback-Leibler divergence of each prediction from the mean prediction ``(n,)``, in nats.

    Its mean is ``infomax``. Less the mean it is the influence function of ``infomax``, so it gives the standard error.

    Args:
        probabilities: ``(n, classes)``.
    """
    mean = probabilities.mean(0)
    return np.asarray(-(probabilities * np.log(mean + _TINY)).sum(1) - entropies(probabilities))


def soft_neighborhood_density(probabilities: Array, *, temperature: float = 0.05, block: int = BLOCK) -> float:
    """Return the mean entropy of the similarities of each sample to the others; high where neighbours are dense (SND, Saito et al. 2021).

    Args:
        probabilities: ``(n, classes)``.
        temperature: Divides the cosine similarities; above 0.
        block: Rows at a time.
    """
    return float(neighbour_entropies(probabilities, temperature=temperature, block=block).mean())


def neighbour_entropies(probabilities: Array, *, temperature: float = 0.05, block: int = BLOCK) -> Array:
    """Return the entropy of the similarities of each sample to the others ``(n,)``; see ``soft_neighborhood_density``.

    The matrix of similarities is computed in blocks of rows, so memory grows with the number of samples and not with its square.
    """
    rows = probabilities / np.linalg.norm(probabilities, axis=1, keepdims=True)
    found = []
    for start in range(0, len(rows), block):
        part = rows[start : start + block] @ rows.T / temperature
        own = np.arange(len(part))
        part[own, start + own] = -1 / temperature  # as the paper's code: a sample is no neighbour of itself
        shares = softmax(part)
        found.append(entropies(shares))
    return np.concatenate(found)


def validate_target(logits: Array, *, snd: bool) -> dict[str, float]:
    """Return the validators that need logits of the target alone, by the names that a run shows.

    Args:
        logits: ``(n, classes)``.
        snd: Whether SND is among them, whose time grows with the square of the number of samples.
    """
    probabilities = softmax(logits)
    found = {"target_entropy": mean_entropy(probabilities), "target_infomax": infomax(probabilities)}
    return found | ({"target_snd": soft_neighborhood_density(spread_rows(probabilities))} if snd else {})


def spread_rows(rows: Array) -> Array:
    """Return at most ``MOST`` rows, evenly spread: the time of SND grows with the square of their number."""
    return rows[np.linspace(0, len(rows) - 1, MOST).astype(np.int64)] if len(rows) > MOST else rows


def classes_in_use(probabilities: Array) -> float:
    """Return the exponential of the entropy of the mean prediction: the number of classes if all are equally frequent, else less.

    Args:
        probabilities: ``(n, classes)``.
    """
    mean = probabilities.mean(0)
    return float(np.exp(-(mean * np.log(mean + _TINY)).sum()))


def weighted_risk(losses: Array, weights: Array) -> tuple[float, float]:
    """Return the deep embedded validation of losses on held-out samples of the source, and its standard error (DEV, You et al. 2019).

    It estimates the mean loss on the target, so low is better.

    Each loss is weighted by how much more likely its sample is in the target than in the source, with a control variate that lowers
    the variance.

    Args:
        losses: ``(n,)``.
        weights: Density ratios ``(n,)``, at least 0.
    """
    if len(losses) < 2:
        return float("nan"), float("nan")
    weighted = losses * weights
    variance = float(np.var(weights, ddof=1))
    eta = 0.0 if variance < _TINY else -float(np.cov(weighted, weights, ddof=1)[0, 1]) / variance
    each = weighted + eta * (weights - 1)
    return float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each)))
