"""The order of samples: a function of seed and epoch, so that a position is an integer."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = "list[int]"
POOL = 50  # batches that are sorted by length together


def epoch_order(count: int, seed: int, epoch: int, weights: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.int64]:
    """Return ``count`` sample indices: a permutation, or draws with replacement by ``weights``."""
    source = np.random.default_rng([seed, epoch])
    if weights is None:
        return source.permutation(count)
    return source.choice(count, size=count, replace=True, p=weights / weights.sum())


def cycled(count: int, seed: int, source: int, start: int, size: int) -> Indices:
    """Return ``size`` sample indices of a source that cycles, from position ``start`` on.

    Each pass over its ``count`` samples is another permutation, a function of the seed, the number of the source and the pass.
    """
    found: Indices = []
    while len(found) < size:
        cycle, offset = divmod(start + len(found), count)
        order = _cycle(count, seed, source, cycle)
        found += order[offset : offset + size - len(found)].tolist()
    return found


@functools.lru_cache(maxsize=8)
def _cycle(count: int, seed: int, source: int, cycle: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, cycle, 2, source]).permutation(count)


def task_weights(known: Sequence[npt.NDArray[Any]], count: int, temperature: float) -> npt.NDArray[np.float64]:
    """Return per-sample weights that draw a task with n labels as often as ``n ** (1 / temperature)`` says (Devlin et al. 2019).

    A sample with the labels of several tasks has the mean of their weights, one without any is not drawn.

    Args:
        known: The rows with a label of each task.
        count: Number of rows.
        temperature: 1 or more; infinity for equal tasks.
    """
    weights, labels = np.zeros(count), np.zeros(count)
    for rows in known:
        weights[rows] += len(rows) ** (1 / temperature - 1)
        labels[rows] += 1
    return weights / np.maximum(labels, 1)


def batches_in_turn(
    known: Sequence[npt.NDArray[Any]], count: int, batch_size: int, seed: int, epoch: int, lengths: npt.NDArray[np.int64] | None = None
) -> list[Indices]:
    """Return batches of one task each, the tasks in turn, as many as ``count`` samples have.

    A task takes a new permutation of its samples in each epoch, and begins it again where it has too few.

    Args:
        known: The rows with a label of each task.
        count: Number of rows.
        batch_size: Samples per batch, at most.
        seed: Seed of the run.
        epoch: Position of the epoch in the run.
        lengths: Tokens per row, by which batches are grouped, or None.
    """
    number = math.ceil(count / batch_size)
    size, found = count // number, dict[int, list[Indices]]()
    turns = [(epoch * number + place) % len(known) for place in range(number)]
    for task in set(turns):
        rows, wanted = known[task], turns.count(task) * size
        passes = [np.random.default_rng([seed, epoch, 3, task, again]).permutation(rows) for again in range(math.ceil(wanted / len(rows)))]
        order = np.concatenate(passes)[:wanted]
        found[task] = even_batches(order, size) if lengths is None else batches_by_length(order, size, lengths, seed, epoch)
    return [found[task].pop() for task in turns]


def even_batches(order: npt.NDArray[np.int64], batch_size: int) -> list[Indices]:
    """Cut an order into the fewest batches of at most ``batch_size`` whose sizes differ by one at most.

    No sample is dropped, and there is no small last batch: one sample alone has no batch statistics.
    """
    parts = math.ceil(len(order) / batch_size)
    return [part.tolist() for part in np.array_split(order, parts)] if parts else []


def batches_by_length(
    order: npt.NDArray[np.int64], batch_size: int, lengths: npt.NDArray[np.int64], seed: int, epoch: int
) -> list[Indices]:
    """Cut an order into batches of samples of nearly equal length, and shuffle the batches.

    The order is cut into stretches of ``POOL`` batches, and each is sorted by length, so that chance still decides which
    samples meet. Few padding tokens are left, and padding is computed like any other token.
    """
    stretch = POOL * batch_size
    parts = [order[start : start + stretch] for start in range(0, len(order), stretch)]
    by_length = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
    batches = even_batches(by_length, batch_size)
    shuffled = np.random.default_rng([seed, epoch, 1]).permutation(len(batches))
    return [batches[index] for index in shuffled]


def ordered_batches(count: int, batch_size: int, lengths: npt.NDArray[np.int64] | None = None) -> list[Indices]:
    """Cut 0 … ``count`` - 1 for evaluation: in order, or from the shortest sample to the longest where ``lengths`` are given."""
    order = np.arange(count) if lengths is None else np.argsort(lengths, kind="stable")
    return [order[start : start + batch_size].tolist() for start in range(0, count, batch_size)]


def balancing_weights(targets: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return per-sample weights that draw every class equally often; multi-label: by a sample's rarest label."""
    if targets.ndim == 1:
        frequency = np.bincount(targets.astype(np.int64)).astype(np.float64)
        return 1.0 / frequency[targets.astype(np.int64)]
    positive = np.nan_to_num(np.asarray(targets, dtype=np.float64))  # NaN is a missing label
    rarity = 1.0 / np.maximum(positive.sum(0), 1.0)
    share_without = 1.0 / max(1.0, float((positive.sum(1) == 0).sum()))
    return np.where(positive.sum(1) > 0, (positive * rarity).max(1), share_without)
