"""Forward passes of a TaskModel from raw inputs, stored activations or pooled features."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from zoo.engine.cache.activation_cache import CachedInputs, EndBoundary
from zoo.engine.rundir.run_context import RunContext
from zoo.models.task_model import TaskModel
from zoo.tuning.partial_forward import Boundary


class Forward:
    """The forward passes that an objective may call, under the run's precision.

    If outputs of the frozen prefix are stored, passes start from them and give the same values.

    Args:
        model: The model.
        context: The conditions of the run.
        boundary: Where stored activations enter the model, or None.
        pooled: Whether inputs are pooled features.
    """

    def __init__(
        self, model: TaskModel, context: RunContext, *, boundary: Boundary | EndBoundary | None = None, pooled: bool = False
    ) -> None:
        self._model, self._context, self._boundary, self._pooled = model, context, boundary, pooled

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context with the run's precision, in which losses and an objective's own modules are computed."""
        return self._context.autocast()

    def __call__(self, x: Any) -> Tensor:
        """Return the logits of a batch of inputs, ``(batch, num_classes)``, for words ``(batch, tokens, num_classes)``."""
        with self._context.autocast():
            if self._pooled:
                return self._model.pooled_logits(x)
            if isinstance(x, CachedInputs):
                return self._model.logits(self._replayed(x), x.x)
            logits: Tensor = self._model(x)
            return logits

    def features(self, x: Any) -> Tensor:
        """Return the pooled features of a batch of inputs, ``(batch, dim)``."""
        with self._context.autocast():
            if self._pooled:
                return x  # type: ignore[no-any-return]  # a tensor of pooled features
            if isinstance(x, CachedInputs):
                return self._model.pool(self._replayed(x), x.x)
            return self._model.embed_batch(x)

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of pooled features, for heads with separate ``pool`` and ``logits``."""
        with self._context.autocast():
            return self._model.pooled_logits(features)

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks in the order of the whole batch; gradients flow to this rank's own rows.

        For objectives that are not separable. Apply every module before gathering: after it all ranks compute the same.
        """
        return self._context.ranks.gather_rows(rows)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of values over all ranks, without gradient; for objectives that are not separable."""
        ranks = self._context.ranks
        summed = values.detach()
        if ranks.count > 1:
            summed = summed.clone()
            ranks.sum_or_stop()  # another rank may have run out of memory
            ranks.add([summed])
        return summed

    def _replayed(self, x: CachedInputs) -> Tensor:
        assert self._boundary is not None, "there are no stored activations"
        return self._boundary.replay(x.x, x.activations)
