"""Augmentation judged by the held-out loss of the linear head, before anything of the backbone trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.data.folds import folds_of
from zoo.data.table import Table
from zoo.engine.optim.head_solver import Rows, held_out_logits


class HeldOutLosses(NamedTuple):
    """Mean losses of held-out samples, by heads that were fitted on the others without and with views of these.

    Attributes:
        without: The loss without views.
        with_views: The loss with each kind of views, by its name.
    """

    without: float
    with_views: dict[str, float]

    @property
    def helps(self) -> bool:
        """Whether views do not raise the loss of samples as they are, on average over the kinds."""
        return sum(self.with_views.values()) <= self.without * len(self.with_views)


def held_out_losses(
    features: Tensor,
    views: Mapping[str, Sequence[Tensor]],
    table: Table,
    outputs: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    device: torch.device,
    seed: int,
    poll: Callable[[], None],
) -> HeldOutLosses | None:
    """Return the held-out losses of linear heads without and with views; None where no samples can be held out.

    Where flips or crops change what a class is (digits, X-rays), views of it mislead the head as they would mislead the backbone.

    Args:
        features: Of the samples as they are, ``(samples, dim)``, float32.
        views: From the name of a kind of views to the features of one or more views of each sample.
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
        logits, _ = held_out_logits(placed, outputs, of_rows, divided, device=device, poll=poll)
        held = np.flatnonzero(logits[:count].isfinite().all(1).numpy())
        return float(of_rows(logits[torch.from_numpy(held)].to(device), held)) / len(held)

    return HeldOutLosses(mean_loss([features]), {kind: mean_loss([features, *parts]) for kind, parts in views.items()})
