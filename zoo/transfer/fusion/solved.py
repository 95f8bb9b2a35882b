"""The solved head of a fusion: all parts beside each other, and one linear layer on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.data.folds import folds_of
from zoo.data.table import Table
from zoo.engine.solved.fitted_layers import Rows
from zoo.engine.solved.head_solver import WITHOUT_FOLDS, solve
from zoo.tasks.find import find_task

Array = npt.NDArray[Any]
Features = Mapping[str, tuple[Tensor, Tensor]]
"""The features ``(rows, dim)`` of each part, and the rows in which it is missing."""


@dataclass(frozen=True)
class Block:
    """One part of the features: standardized, zero where it is missing.

    Attributes:
        mean: ``(dim,)``, of the training rows that have it.
        scale: Divisor: a number per column of numbers; of features one for all, which makes their summed variance 1.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: Tensor, missing: Tensor) -> Block:
        """Return the block of training features ``(rows, dim)``, measured on the rows that have the part."""
        there = features[~missing].double()
        deviation = (there - there.mean(0)).square().mean(0).sum().sqrt()
        return cls(there.mean(0).float(), deviation.clamp(min=1e-12).float())

    def __call__(self, features: Tensor, missing: Tensor) -> Tensor:
        """Return the standardized features ``(rows, dim)``."""
        return ((features - self.mean) / self.scale).masked_fill(missing[:, None], 0.0)


def joined(features: Features, blocks: Mapping[str, Block]) -> Tensor:
    """Return all parts beside each other, and a column per part that is 1 where it is missing."""
    rows = [blocks[name](values, missing) for name, (values, missing) in features.items()]
    return torch.cat([*rows, *(missing[:, None].float() for _, missing in features.values())], 1)


def solve_head(rows: Tensor, labels: Table, task_name: str, kept: Array, seed: int) -> tuple[Tensor, Tensor]:
    """Return the optimal weight ``(classes, features)`` and bias of a head; copies of a row are on one side of each fold.

    Args:
        rows: ``(rows, features)``.
        labels: The targets of the rows before some of them were copied.
        task_name: Name of the task.
        kept: Number of each row in ``labels``.
        seed: Seed of the folds.
    """
    task, targets = find_task(task_name), torch.as_tensor(np.asarray(labels.targets)[kept])
    groups = tuple(str(row) if labels.groups is None else labels.groups[row] for row in kept)
    table = Table([*range(len(kept))], targets.numpy(), labels.classes, groups=groups)
    folds = folds_of(table, seed)

    def loss(logits: Tensor, chosen: Rows) -> Tensor:
        return task.loss(logits, targets[torch.from_numpy(chosen)])

    found = solve(rows, len(labels.classes), loss, folds, device=torch.device("cpu"), penalty=None if folds else WITHOUT_FOLDS)
    assert found.bias is not None, "the layer has a bias"
    return found.weight, found.bias


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
