"""The solved head of a fusion, one linear layer on all parts beside each other, and the scores of such a head on each part alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.data.splits.folds import folds_of
from zoo.data.table import Table
from zoo.engine.solved.fitted_layers import Rows
from zoo.engine.solved.head_solver import WITHOUT_FOLDS, Solution, held_out_logits, solve
from zoo.engine.solved.penalties import margin_of
from zoo.tasks.find import find_task

Array = npt.NDArray[Any]
Features = Mapping[str, tuple[Tensor, Tensor]]
"""The features ``(rows, dim)`` of each part, and the rows in which it is missing."""
LIMIT = 10.0  # deviations; a column that hardly varies would else decide alone about a row that has another value


@dataclass(frozen=True)
class Block:
    """One part of the features: standardized, zero where it is missing.

    Attributes:
        mean: ``(dim,)``, of the training rows that have it.
        scale: Divisor: a number per column of numbers; of features one for all, which makes their summed variance 1.
        limit: Largest standardized value, beyond which values count as this; infinite for features.
    """

    mean: Tensor
    scale: Tensor
    limit: float = math.inf

    @classmethod
    def of(cls, features: Tensor, missing: Tensor, *, limit: float = math.inf) -> Block:
        """Return the block of training features ``(rows, dim)``, measured on the rows that have the part."""
        there = features[~missing].double()
        mean = there.mean(0)
        deviation = (there - mean).square().mean(0).sum().sqrt()
        rounding = torch.finfo(torch.float32).eps * mean.norm()  # by which values differ that are meant to be equal
        return cls(mean.float(), torch.maximum(deviation, rounding).clamp(min=1e-12).float(), limit)

    def __call__(self, features: Tensor, missing: Tensor) -> Tensor:
        """Return the standardized features ``(rows, dim)``."""
        return standardized(features, self.mean, self.scale, self.limit).masked_fill(missing[:, None], 0.0)


def standardized(values: Tensor, mean: Tensor, scale: Tensor, limit: float) -> Tensor:
    """Return values ``(batch, dim)`` less their mean, over their scale, and within ``limit`` of 0."""
    found = (values - mean) / scale
    return found if math.isinf(limit) else found.clamp(-limit, limit)


def joined(features: Features, blocks: Mapping[str, Block]) -> Tensor:
    """Return all parts beside each other, and a column per part that is 1 where it is missing."""
    rows = [blocks[name](values, missing) for name, (values, missing) in features.items()]
    return torch.cat([*rows, *(missing[:, None].float() for _, missing in features.values())], 1)


@dataclass(frozen=True)
class HeadData:
    """What a head is solved on.

    Attributes:
        task: Name of the task.
        labels: The targets of the rows.
        kept: Number of each row in ``labels``; some are there twice.
        seed: Seed of the folds.
    """

    task: str
    labels: Table
    kept: Array
    seed: int

    @property
    def targets(self) -> Tensor:
        """The target of each row."""
        return torch.as_tensor(np.asarray(self.labels.targets)[self.kept])

    @property
    def margin(self) -> float:
        """Standard errors by which the held-out loss of the penalty may exceed the lowest."""
        return margin_of(find_task(self.task), self.targets.numpy())

    def folds(self) -> list[tuple[Array, Array]]:
        """Return training and held-out rows; copies of a row are on one side. Empty where no rows can be held out."""
        groups = tuple(str(row) if self.labels.groups is None else self.labels.groups[row] for row in self.kept)
        table = Table([*range(len(self.kept))], self.targets.numpy(), self.labels.classes, groups=groups)
        return list(folds_of(table, self.seed))

    def loss(self, logits: Tensor, chosen: Rows) -> Tensor:
        """Return the summed loss of the logits of chosen rows."""
        return find_task(self.task).loss(logits, self.targets[torch.from_numpy(chosen)])


def solve_head(rows: Tensor, data: HeadData, *, held_out: bool = False) -> Solution:
    """Return the optimal head on ``(rows, features)``, on demand with logits of held-out rows where rows can be held out."""
    folds = data.folds()
    penalty = None if folds else WITHOUT_FOLDS
    outputs, cpu = len(data.labels.classes), torch.device("cpu")
    return solve(rows, outputs, data.loss, folds, device=cpu, penalty=penalty, held_out=held_out, margin=data.margin)


def some_rows(features: Features, data: HeadData, rows: Array) -> tuple[Features, HeadData]:
    """Return the features and the labels of some rows of data that have each row once."""
    index = torch.from_numpy(rows)
    chosen = {name: (values[index], missing[index]) for name, (values, missing) in features.items()}
    return chosen, HeadData(data.task, data.labels.select(rows), np.arange(len(rows)), data.seed)


def with_dropped(features: Features, share: float, seed: int) -> tuple[Array, dict[str, tuple[Tensor, Tensor]]]:
    """Return the rows, a share of them once more without one of the parts that they have, and the number of each row."""
    gone, random = torch.stack([missing for _, missing in features.values()]).numpy(), np.random.default_rng(seed)
    count_of_rows = gone.shape[1]
    usable = np.flatnonzero((~gone).sum(0) > 1)
    chosen = random.permutation(usable)[: round(share * len(usable))]
    dropped = np.array([random.choice(np.flatnonzero(~gone[:, row])) for row in chosen], dtype=np.int64)
    kept = np.concatenate([np.arange(count_of_rows), chosen])
    found = {}
    for place, (name, (values, missing)) in enumerate(features.items()):
        more = missing[torch.from_numpy(kept)].clone()
        more[count_of_rows:] |= torch.from_numpy(dropped == place)
        found[name] = (values[torch.from_numpy(kept)], more)
    return kept, found


def monitor_of(data: HeadData) -> str:
    """Return the metric by which parts are compared: the task's own default."""
    return find_task(data.task).default_monitor(np.asarray(data.labels.targets))


def score(logits: Tensor, labels: Table, data: HeadData, rows: Array | None = None) -> float:
    """Return the metric of logits of labelled rows, of some of them, or of all that have logits."""
    chosen = np.flatnonzero(torch.isfinite(logits).all(1).numpy()) if rows is None else rows
    targets = np.asarray(labels.targets)[chosen]
    return float(find_task(data.task).metrics(logits.numpy()[chosen].astype(np.float64), targets, labels.classes)[monitor_of(data)])


def part_scores(
    features: Features,
    blocks: Mapping[str, Block],
    data: HeadData,
    *,
    rows: Array | None = None,
    held: tuple[Features, Table] | None = None,
    together: bool = False,
) -> dict[str, float]:
    """Return the score of a solved head on each part alone; the numbers are one.

    Args:
        features: Of the training rows.
        blocks: How parts are standardized.
        data: The training rows, each once.
        rows: Rows that are measured, by heads that were fitted without them; None for all.
        held: Features and labels of other rows, which are then measured instead, by heads that were fitted on all training rows.
        together: Whether all parts beside each other are measured too, as ``concatenate``.

    Returns:
        ``image``, ``text`` and ``numbers``, those that there are; empty where no rows can be held out.
    """
    folds = data.folds()
    if held is None and not folds:
        return {}
    numbers = [name for name in features if name.startswith("number ")]
    groups = {name: [name] for name in features if name not in numbers} | ({"numbers": numbers} if numbers else {})
    groups |= {"concatenate": [*features]} if together else {}
    found = {}
    for name, members in groups.items():
        inputs = joined({member: features[member] for member in members}, blocks)
        if held is None:
            logits, _ = held_out_logits(inputs, len(data.labels.classes), data.loss, folds, device=torch.device("cpu"), margin=data.margin)
            found[name] = score(logits, data.labels, data, rows)
        else:
            solved, (others, labels) = solve_head(inputs, data), held
            assert solved.bias is not None, "the layer has a bias"
            values = joined({member: others[member] for member in members}, blocks)
            found[name] = score(values @ solved.weight.T + solved.bias, labels, data)
    return found
