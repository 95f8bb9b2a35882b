"""Classifiers of a few labelled features, by name. None of them trains the backbone.

Each is a function of the support, ``(samples, dim)`` float32, its classes ``(samples,)`` as whole numbers from 0, of which each has a
sample, and their number. It returns a function from features ``(queries, dim)`` to logits ``(queries, classes)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zoo.data.splits.folds import folds_of
from zoo.data.table import Table
from zoo.engine.solved.head_solver import WITHOUT_FOLDS, solve
from zoo.errors import OptionError, did_you_mean

Logits = Callable[[Tensor], Tensor]
Head = Callable[[Tensor, Tensor, int], Logits]
SCALE = 10.0  # of cosines, which lie in [-1, 1], as logits
STEPS = 30  # of L-BFGS
PENALTIES = np.logspace(-4, 3, 15)  # of a ridge, times the mean of the squared lengths of the features


def class_means(features: Tensor, classes: Tensor, count: int) -> Tensor:
    """Return the mean features of each class, ``(classes, dim)``."""
    onehot = functional.one_hot(classes, count).to(features.dtype)
    return (onehot.T @ features) / onehot.sum(0)[:, None]


def prototypes(features: Tensor, classes: Tensor, count: int) -> Logits:
    """Return minus the squared distance to the class means (Snell et al. 2017); its choice is that of the nearest centroid."""
    means = class_means(features, classes, count)
    return lambda queries: -torch.cdist(queries, means).square()


def cosine_centroid(features: Tensor, classes: Tensor, count: int) -> Logits:
    """Return the cosine to the class means of features of length one, times ``SCALE`` (L2N of Wang et al. 2019)."""
    means = functional.normalize(class_means(functional.normalize(features), classes, count))
    return lambda queries: SCALE * functional.normalize(queries) @ means.T


def simpleshot(features: Tensor, classes: Tensor, count: int) -> Logits:
    """Return minus the squared distance to the class means of centred features of length one (CL2N, Wang et al. 2019).

    The paper centres by the mean of its base classes; here it is the mean of the class means of the support.
    """
    centre = class_means(features, classes, count).mean(0)
    means = class_means(functional.normalize(features - centre), classes, count)
    return lambda queries: -SCALE * torch.cdist(functional.normalize(queries - centre), means).square()


def ridge(features: Tensor, classes: Tensor, count: int) -> Logits:
    """Return ridge regression on the one-hot classes (Bertinetto et al. 2019), with the penalty of the lowest leave-one-out error.

    All penalties are tried by one decomposition (Golub et al. 1979). The intercept is not penalised.
    """
    rows, onehot = features.double(), functional.one_hot(classes, count).double()
    mean, base = rows.mean(0), onehot.mean(0)
    centred, wanted = rows - mean, onehot - base
    left, singular, right = torch.linalg.svd(centred, full_matrices=False)
    seen = left.T @ wanted
    best, chosen = torch.inf, torch.zeros_like(singular)
    for penalty in PENALTIES * float(singular.square().sum()) / len(rows):
        kept = singular.square() / (singular.square() + penalty)
        leverage = left.square() @ kept + 1 / len(rows)
        errors = (wanted - left @ (kept[:, None] * seen)) / (1 - leverage)[:, None].clamp(min=1e-9)
        error = float(errors.square().mean())
        if error < best:
            best, chosen = error, singular / (singular.square() + penalty)
    weight = right.T @ (chosen[:, None] * seen)
    return lambda queries: (SCALE * ((queries.double() - mean) @ weight + base)).float()


def logistic(features: Tensor, classes: Tensor, count: int) -> Logits:
    """Return the head that ``fit`` solves: logistic regression whose penalty is chosen by cross-validation, see docs/defaults.md."""
    names = tuple(map(str, range(count)))
    folds = folds_of(Table([*range(len(classes))], classes.numpy(), names), 0)
    return _solved(features, classes, count, folds)


def quick_logistic(features: Tensor, classes: Tensor, count: int) -> Logits:
    """Return ``logistic`` with the penalty that is taken where nothing can be held out, for many episodes."""
    return _solved(features, classes, count, (), WITHOUT_FOLDS)


def _solved(features: Tensor, classes: Tensor, count: int, folds: object, penalty: float | None = None) -> Logits:
    def loss(logits: Tensor, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
        return functional.cross_entropy(logits, classes[torch.from_numpy(rows)], reduction="sum")

    found = solve(features, count, loss, folds, device=torch.device("cpu"), penalty=penalty)  # type: ignore[arg-type]
    assert found.bias is not None, "the layer has a bias"
    weight, bias = found.weight, found.bias
    return lambda queries: queries @ weight.T + bias


def baseline_plus_plus(features: Tensor, classes: Tensor, count: int) -> Logits:
    """Return a trained layer of cosines (Baseline++, Chen et al. 2019), begun at the class means and fitted by L-BFGS."""
    rows = functional.normalize(features)
    weight = functional.normalize(class_means(rows, classes, count)).requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=STEPS, line_search_fn="strong_wolfe")

    def value() -> Tensor:
        optimizer.zero_grad()
        total = functional.cross_entropy(SCALE * rows @ functional.normalize(weight).T, classes)
        total.backward()  # type: ignore[no-untyped-call]  # torch's own method has no types
        return total

    with torch.enable_grad():
        optimizer.step(value)  # type: ignore[no-untyped-call]  # the same
    learned = functional.normalize(weight.detach())
    return lambda queries: SCALE * functional.normalize(queries) @ learned.T


HEADS: Mapping[str, Head] = MappingProxyType(
    {
        "simpleshot": simpleshot,
        "prototypes": prototypes,
        "centroid": cosine_centroid,
        "ridge": ridge,
        "logistic": logistic,
        "baseline++": baseline_plus_plus,
    }
)


def head_named(method: str, *, quick: bool = False) -> Head:
    """Return a head by its name.

    Args:
        method: One of ``HEADS``.
        quick: Whether it is fitted many times.

    Raises:
        OptionError: With the nearest name.
    """
    if method not in HEADS:
        dual = "; of a dual encoder also tip-adapter and tip-adapter-f, outside of episodes"
        raise OptionError(f"there is no few-shot method {method!r}{did_you_mean(str(method), HEADS)}; they are: {', '.join(HEADS)}{dual}")
    return quick_logistic if quick and method == "logistic" else HEADS[method]
