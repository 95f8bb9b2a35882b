"""Losses between the outputs of a student and of a teacher, one value per sample unless they compare samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

_EPS = 1e-12


def soft_targets(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the divergence of softened probabilities from a teacher's, times the squared temperature (Hinton et al. 2015).

    The factor keeps the size of the gradient about equal for all temperatures.

    Args:
        student: Logits ``(batch, classes)``.
        teacher: Logits of the same classes.
        temperature: What both are divided by, above 0.

    Returns:
        ``(batch,)``, at least 0.
    """
    found, wanted = (student / temperature).log_softmax(1), (teacher / temperature).log_softmax(1)
    return functional.kl_div(found, wanted, reduction="none", log_target=True).sum(1) * temperature**2


def soft_labels(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the mean over labels of the divergences of softened sigmoids from a teacher's, times the squared temperature.

    The loss of ``soft_targets`` for labels that do not exclude each other, each of which is a class and its contrary.

    Args:
        student: Logits ``(batch, labels)``.
        teacher: Logits of the same labels.
        temperature: What both are divided by, above 0.

    Returns:
        ``(batch,)``, at least 0.
    """
    found, wanted = student / temperature, teacher / temperature
    yes, no = functional.logsigmoid(wanted), functional.logsigmoid(-wanted)
    gap = yes.exp() * (yes - functional.logsigmoid(found)) + no.exp() * (no - functional.logsigmoid(-found))
    return gap.mean(1) * temperature**2


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of features, ``(batch,)`` (FitNets, Romero et al. 2015).

    Args:
        student: Projected features ``(batch, channels, …)``.
        teacher: Features of the same shape.
    """
    return (student - teacher).square().flatten(1).mean(1)


def attention(features: Tensor) -> Tensor:
    """Return where features are large: their squares' mean over the channels, divided by its Euclidean length.

    Args:
        features: ``(batch, channels, …)``.

    Returns:
        ``(batch, places)``, rows of length 1.
    """
    return functional.normalize(features.square().mean(1).flatten(1), eps=_EPS)


def attention_gap(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance between the attention of both, ``(batch,)``, in [0, 2] (Zagoruyko & Komodakis 2017).

    Args:
        student: Features ``(batch, channels, …)``.
        teacher: Features with as many places, and any number of channels.
    """
    return (attention(student) - attention(teacher)).square().sum(1)


def distance_relations(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how the distances between samples differ, in units of their mean (RKD-D, Park et al. 2019).

    Args:
        student: Features ``(batch, dim)``.
        teacher: Features ``(batch, dim)`` of the same samples, of any width.

    Returns:
        The mean Huber loss over all pairs.
    """
    return _mean_gap(_distances, student, teacher)


def angle_relations(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how the cosines of the angles between three samples differ (RKD-A, Park et al. 2019).

    It takes memory for the cube of the batch.

    Args:
        student: Features ``(batch, dim)``.
        teacher: Features ``(batch, dim)`` of the same samples, of any width.

    Returns:
        The mean Huber loss over all triples.
    """
    return _mean_gap(_cosines, student, teacher)


def _mean_gap(relations: Callable[[Tensor], Tensor], student: Tensor, teacher: Tensor) -> Tensor:
    with torch.autocast(student.device.type, enabled=False):  # bf16 has too few digits for differences of squares
        with torch.no_grad():
            wanted = relations(teacher.float())
        return functional.smooth_l1_loss(relations(student.float()), wanted)


def _distances(x: Tensor) -> Tensor:
    """Return the distances ``(batch, batch)``, divided by the mean of those above 0."""
    x = x - x.mean(0)  # distances are those of the rows, and squares without their mean keep more digits
    squares = x.square().sum(1)
    squared = (squares[:, None] + squares[None] - 2 * x @ x.T).clamp(min=_EPS)
    found = squared.sqrt() * (1 - torch.eye(len(x), device=x.device, dtype=x.dtype))
    apart = found > 0
    return found / (found.sum() / apart.sum().clamp(min=1)).clamp(min=_EPS)


def _cosines(x: Tensor) -> Tensor:
    """Return the cosine at sample i of the angle between j and k, ``(batch, batch, batch)``."""
    directions = functional.normalize(x[None] - x[:, None], dim=2, eps=_EPS)
    return directions @ directions.transpose(1, 2)
