"""The linear heads of several tasks, each solved by itself on the samples that have its label."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.table import Table
from zoo.engine.solved.penalties import margin_of
from zoo.engine.solved.solved_head import SolvedHead, solved_head
from zoo.tasks.member import Member
from zoo.tasks.several import SeveralTasks

Poll = Callable[[], None]


def solved_tasks(
    features: Tensor,
    table: Table,
    task: SeveralTasks,
    *,
    bias: bool,
    weights: Tensor | None,
    smoothing: float,
    device: torch.device,
    seed: int,
    poll: Poll,
) -> SolvedHead:
    """Return the optimum of the heads of all tasks, whose penalties are chosen one by one.

    On fixed features the heads have nothing in common, so each is what it would be without the others.

    Args:
        features: Pooled features ``(samples, dim)``, on the CPU.
        table: The samples, numbers in standard units.
        task: The tasks.
        bias: Whether the heads have a bias.
        weights: A weight per output, or None.
        smoothing: Label smoothing.
        device: Where losses are computed.
        seed: Seed of the folds.
        poll: Called now and then; may raise to stop.

    Raises:
        TrainingError: If features are not finite, or no finite optimum was found.
    """
    found = []
    for member, part in zip(task.members, table.parts, strict=True):
        assert table.targets is not None, "the samples have labels"
        rows = part.known(table.targets)
        own = _own_table(table, member, rows)
        loss, by_output = _losses(member, weights, smoothing)
        margin = margin_of(member.task, np.asarray(own.targets), weighted=weights is not None)
        given: dict[str, Any] = {"outputs": member.outputs, "bias": bias, "device": device, "seed": seed, "poll": poll}
        found.append((member, solved_head(features[torch.from_numpy(rows)], own, loss, by_output=by_output, margin=margin, **given)))
    heads = [head for _, head in found]
    return SolvedHead(
        torch.cat([head.weight for head in heads]),
        torch.cat([head.bias for head in heads if head.bias is not None]) if bias else None,
        float(np.exp(np.mean([math.log(head.penalty) for head in heads]))),
        sum(head.loss / member.unit for member, head in found),
        converged=all(head.converged for head in heads),
    )


def _own_table(table: Table, member: Member, rows: np.ndarray) -> Table:
    """Return the samples with a label of one task, with its targets and classes alone."""
    chosen = table.select(rows)
    classes = member.own_classes(table.classes) or ()
    return replace(chosen, targets=member.truth(np.asarray(chosen.targets)), classes=classes, parts=(), origin=None)


def _losses(
    member: Member, weights: Tensor | None, smoothing: float
) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor] | None]:
    """Return the loss of a task, and that of each of its outputs where they have one of their own."""
    if not member.task.has_classes:
        return member.task.loss, None
    options: dict[str, Any] = {"weights": None if weights is None else weights[member.columns], "smoothing": smoothing}
    each = member.task.losses_by_output
    return partial(member.task.loss, **options), each and partial(each, **options)
