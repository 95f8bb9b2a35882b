"""Scores of each part alone on rows that it was not fitted on, beside the fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.data.table import Table
from zoo.engine.solved.head_solver import held_out_logits
from zoo.tasks.find import find_task
from zoo.transfer.fusion.solved import Block, Features, HeadData, joined, solve_head

Array = npt.NDArray[Any]


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
            logits, _ = held_out_logits(inputs, len(data.labels.classes), data.loss, folds, device=torch.device("cpu"))
            found[name] = score(logits, data.labels, data, rows)
        else:
            solved, (others, labels) = solve_head(inputs, data), held
            assert solved.bias is not None, "the layer has a bias"
            values = joined({member: others[member] for member in members}, blocks)
            found[name] = score(values @ solved.weight.T + solved.bias, labels, data)
    return found
