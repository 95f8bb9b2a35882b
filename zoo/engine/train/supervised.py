"""The objective of labelled data: the loss of the model's task."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from zoo.data.dataset import Batch
from zoo.data.table import Table, flat_targets
from zoo.engine.cache.forward import Forward
from zoo.engine.inference.metrics import compute_metrics
from zoo.engine.loading.stream import Source
from zoo.engine.options.config import Config
from zoo.engine.options.model_selection import resolve_monitor
from zoo.engine.train.loss import Loss, class_weights
from zoo.engine.train.objective import Infer, Objective
from zoo.engine.train.scale import TargetScale, encoded, measure, standard_units
from zoo.models.task_model import TaskModel
from zoo.tuning import Regularizers


class Supervised(Objective):
    """Training on labels.

    Args:
        model: The model, on the device it trains on.
        train: Training data.
        valid: Validation data, or None.
        config: The resolved configuration.
        device: Where the model runs.
        penalties: Regularisers, or None.
    """

    name = "supervised"

    def __init__(
        self,
        model: TaskModel,
        train: Table,
        valid: Table | None,
        config: Config,
        device: torch.device,
        penalties: Regularizers | None = None,
    ) -> None:
        self._scale: TargetScale | None = measure(model.task, model.head, np.asarray(train.targets), model.num_classes)
        self._classes, self.penalties = train.classes, penalties
        self.whole = "a penalty (delta) needs the inputs" if penalties and penalties.needs_inputs else ""
        self._truth: npt.NDArray[Any] | None = None if valid is None else np.asarray(valid.targets)
        weights = class_weights(config.class_weights, flat_targets(np.asarray(train.targets)), train.classes)
        self._loss = Loss(model.task, config.label_smoothing, None if weights is None else weights.to(device))
        sources = {"train": Source(encoded(train, self._scale))}
        super().__init__(model, sources, {} if valid is None else {"valid": valid}, monitor=resolve_monitor(config.monitor, model.task))

    def weight(self, batch: Mapping[str, Batch]) -> Tensor | float:
        """Return the sum of the weights of the targets."""
        return self._loss.weight(batch["train"].y)

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the sum of the losses of a batch."""
        return self.label_loss(forward(batch["train"].x), batch["train"].y)

    def label_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the task's losses of logits against targets."""
        return self._loss.total(logits.float(), targets)

    def penalty(self, batch: Mapping[str, Batch]) -> Tensor | None:
        """Return the regularisers' part."""
        return self.penalties.penalty(batch["train"].x) if self.penalties else None

    def soften(self, targets: Tensor) -> Tensor:
        """Return single labels as one-hot rows."""
        return functional.one_hot(targets, self.model.num_classes).float() if self.model.task == "single-label" else targets

    def validate(self, infer: Infer) -> dict[str, float]:
        """Return the metrics of the task, in the targets' own unit."""
        assert self._truth is not None, "asked for validation without validation data"
        logits, truth = infer("valid"), self._truth
        metrics = compute_metrics(self.model.task, logits if self._scale is None else self._scale.decode(logits), truth, self._classes)
        if self.model.task != "regression":
            return metrics
        error = logits - (truth.reshape(logits.shape) if self._scale is None else self._scale.encode(truth))
        return {"loss": float((error**2).mean()), **metrics}

    def active(self) -> AbstractContextManager[Any]:
        """Let the head of a regression put out standard units."""
        return standard_units(self._scale, self.model.head)

    def phase(self) -> AbstractContextManager[Any]:
        """Let the regularisers take note of forward passes."""
        return self.penalties.watching() if self.penalties else nullcontext()

    def parts(self) -> dict[str, Any]:
        """Return the values of the start that regularisers keep."""
        return {"penalties": self.penalties} if self.penalties else {}
