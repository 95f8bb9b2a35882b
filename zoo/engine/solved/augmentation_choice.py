"""Augmentation judged by the held-out loss of the linear head, before anything of the backbone trains."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.data.splits.folds import folds_of
from zoo.data.table import Table
from zoo.engine.solved.fitted_layers import Rows
from zoo.engine.solved.head_solver import lowest_held_out_loss

log = logging.getLogger("zoo")

MAX_SAMPLES = 2000  # beyond it augmentation is not judged: more samples need it less, and the views would cost as much as an epoch
MAX_VIEWS, MAX_READS = 4, 1000


class HeldOutLosses(NamedTuple):
    """Mean losses of held-out samples, by heads that were fitted on the others without and with augmented views of these.

    Each is that of the penalty with the lowest loss, which varies little with the views that are drawn.

    Attributes:
        without: The loss without augmented views.
        with_views: The loss with them.
    """

    without: float
    with_views: float

    @property
    def helps(self) -> bool:
        """Whether augmented views do not raise the loss of samples as they are."""
        return self.with_views <= self.without


def views_to_judge(samples: int) -> int:
    """Return how many augmented views of each sample are compared; 0 if there are too many samples."""
    return 0 if samples > MAX_SAMPLES else max(1, min(MAX_VIEWS, MAX_READS // max(samples, 1)))


def held_out_losses(
    features: Tensor,
    views: Sequence[Tensor],
    table: Table,
    outputs: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    device: torch.device,
    seed: int,
    poll: Callable[[], None],
) -> HeldOutLosses | None:
    """Return the held-out losses of linear heads without and with augmented views; None where no samples can be held out.

    Where flips or crops change what a class is (digits, X-rays), views of it mislead the head as they would mislead the backbone.

    Args:
        features: Of the samples as they are, ``(samples, dim)``, float32.
        views: Of augmented views of them, likewise.
        table: The samples, with encoded targets.
        outputs: Number of outputs of the head.
        loss: From logits and targets of some samples to the sum of their losses.
        device: Where ``loss`` computes.
        seed: Seed of the folds.
        poll: Called now and then; may raise to stop.
    """
    count, folds = len(features), folds_of(table, seed)
    if not folds:
        return None
    targets = torch.as_tensor(table.targets).to(device)

    def mean_loss(parts: Sequence[Tensor]) -> float:
        repeated = targets.repeat(len(parts), *[1] * (targets.ndim - 1))

        def of_rows(logits: Tensor, rows: Rows) -> Tensor:
            return loss(logits, repeated[torch.from_numpy(rows).to(device)])

        divided = [(np.concatenate([train + count * part for part in range(len(parts))]), held) for train, held in folds]
        values = torch.cat(list(parts))
        placed = values.to(device) if device.type == "cuda" else values  # other devices may lack float64
        return lowest_held_out_loss(placed, outputs, of_rows, divided, device=device, poll=poll)

    return HeldOutLosses(mean_loss([features]), mean_loss([features, *views]))


def views_help(
    features: Tensor,
    views_of: Callable[[int], Sequence[Tensor]],
    table: Table,
    outputs: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    device: torch.device,
    seed: int,
    poll: Callable[[], None],
) -> bool:
    """Return whether augmented views help the head on held-out samples, and say so; True where that cannot be known.

    Args:
        features: Of the samples as they are, ``(samples, dim)``.
        views_of: Returns those of so many augmented views of them.
        table: As for ``held_out_losses``, like the other arguments.
        outputs: Number of outputs of the head.
        loss: From logits and targets of some samples to the sum of their losses.
        device: Where ``loss`` computes.
        seed: Seed of the folds.
        poll: Called now and then; may raise to stop.
    """
    views = views_to_judge(len(features))
    found = held_out_losses(features, views_of(views), table, outputs, loss, device=device, seed=seed, poll=poll) if views else None
    if found is None:
        return True
    done, other = (
        ("augmented", "augment='none' leaves them as they are") if found.helps else ("not augmented", "augment='light' augments them")
    )
    line = "training images are %s: the held-out loss of the head is %.4g with augmented views and %.4g without; %s"
    log.info(line, done, found.with_views, found.without, other)
    return found.helps
