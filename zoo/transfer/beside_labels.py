"""The base of objectives that add a loss to that of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

from torch import Tensor

from zoo.data.dataset import Batch
from zoo.data.table import Table
from zoo.engine.cache.activation_cache import targets_of
from zoo.engine.loading.stream import Source
from zoo.engine.objective.objective import Infer, Objective
from zoo.engine.objective.supervised import Supervised
from zoo.engine.options.config import Config
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.solved.solved_head import SolvedHead


class BesideLabels(Objective):
    """The objective of the labels, whose ``loss`` a subclass extends or weights; all else is as without it.

    Where a recipe solves the head and trains on, the head starts from the optimum of the labels.

    Args:
        base: The objective of the labels.
        sources: The training data by name.
        valid: The validation data by name; None for those of the labels.
        monitor: The metric that chooses the epoch; None for that of the labels.

    Attributes:
        base: The objective of the labels.
        share: What a sample adds to the divisor of the loss, on average; times a sum over samples it gives their mean in the result.
    """

    def __init__(
        self, base: Supervised, sources: Mapping[str, Source], valid: Mapping[str, Table] | None = None, *, monitor: str | None = None
    ) -> None:
        super().__init__(base.model, sources, base.valid if valid is None else valid, monitor=monitor or base.monitor)
        self.base, self.cache_obstacle = base, base.cache_obstacle

    @cached_property
    def share(self) -> float:
        """The mean weight of a training sample in the divisor of the loss."""
        targets = targets_of(self.base.sources["train"].table)
        device = next(self.base.model.parameters()).device
        whole = self.base.weight({"train": Batch(None, targets.to(device), list(range(len(targets))))})
        return float(whole) / len(targets)

    def weight(self, batch: Mapping[str, Batch]) -> Tensor | float:
        """Return the divisor of the labels' loss."""
        return self.base.weight(batch)

    def can_solve(self, config: Config) -> bool:
        """Return whether the head can start from the optimum of its labels; not where nothing else would train."""
        return self.base.can_solve(config) and not all(phase.solve for phase in config.recipe.phases)

    def solve(self, features: Tensor, table: Table, **options: Any) -> SolvedHead:
        """Return the optimum of the head for the labels alone, from which training starts."""
        return self.base.solve(features, table, **options)

    def suits_augmentation(self, features: Tensor, views_of: Any, table: Table, *, context: RunContext) -> bool:
        """Return what the labels say."""
        return self.base.suits_augmentation(features, views_of, table, context=context)

    def validate(self, infer: Infer) -> dict[str, float]:
        """Return the metrics of the task."""
        return self.base.validate(infer)

    def penalty(self, batch: Mapping[str, Batch]) -> Tensor | None:
        """Return the penalties of the regularisers."""
        return self.base.penalty(batch)

    def phase(self) -> AbstractContextManager[Any]:
        """Let the regularisers record forward passes."""
        return self.base.phase()

    def parts(self) -> dict[str, Any]:
        """Return the regularisers."""
        return self.base.parts()

    def state_dict(self) -> dict[str, Any]:
        """Return the thresholds."""
        return self.base.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over the thresholds, in place."""
        self.base.load_state_dict(state)
