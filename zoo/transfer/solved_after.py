"""Objectives of the features alone, after which the head is solved."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.data.table import Table
from zoo.engine.objective.objective import Objective
from zoo.engine.options.config import Config
from zoo.engine.solved.solved_head import SolvedHead
from zoo.errors import DataError, OptionError, count

if TYPE_CHECKING:
    from zoo.engine.objective.supervised import Supervised


class FeatureObjective(Objective):
    """Trains the backbone without the head, which the last phase of the recipe solves on the labels.

    Batches are compared as a whole, so they are never cut, and texts of any length meet in them.

    Args:
        base: The objective of the labels, which solves the head and validates.
    """

    separable = by_length = False

    def __init__(self, base: Supervised) -> None:
        super().__init__(base.model, base.sources, base.valid, monitor=base.monitor)
        self.validate, self._base = base.validate, base  # type: ignore[method-assign]  # the same signature

    def faults(self, config: Config) -> list[str]:
        """Return what keeps the head from being solved at the end."""
        last = config.recipe.phases[-1]
        if not (last.solve and last.frozen == "all"):
            remedy = "leave recipe out, or end it with Phase(name='head', frozen='all', solve=True)"
            return [f"the recipe {config.recipe.name!r} does not end with a solved head, and this objective trains none; {remedy}"]
        if not self.can_solve(config):
            options = "solve_head, cache, shard, views, dropout, ema, balanced_sampling, penalties and loss"
            return [f"the head cannot be solved at the end: it must be linear, and {options} as they are by default"]
        return []

    def can_solve(self, config: Config) -> bool:
        """Return whether the head can be solved on the features."""
        return config.cache and not config.shard and self._base.can_solve(config)

    def solve(self, features: Tensor, table: Table, *, device: torch.device, seed: int, poll: Callable[[], None]) -> SolvedHead:
        """Return the optimum of the head on the features as they are."""
        return self._base.solve(features, table, device=device, seed=seed, poll=poll)


def check_classes(base: Supervised, name: str) -> None:
    """Check that the data have classes of which samples can be compared.

    Args:
        base: The objective of the labels.
        name: Name of the method, for the message.

    Raises:
        OptionError: If the task is not to choose one of several classes.
        DataError: If there is no pair of samples of equal or none of different classes.
    """
    if not base.task.exclusive:
        raise OptionError(f"the objective {name!r} compares classes, and the task is {base.task.words}; it needs single-label")
    counts = [number for number in base.sources["train"].table.counts().values() if number]
    if len(counts) < 2 or max(counts) < 2:
        found = f"{count(len(counts), 'class')} with at most {count(max(counts, default=0), 'sample')} each"
        raise DataError(f"the objective {name!r} needs two classes, and two samples of one; the training data have {found}")
