"""The metrics of a run on its validation data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from zoo.engine.inference.metrics import compute_metrics
from zoo.engine.options.epochs import Epoch
from zoo.models.task_model import TaskModel

if TYPE_CHECKING:
    from zoo.engine.train.trainer import Training


def validate(run: Training, epoch: Epoch | None) -> dict[str, float]:
    """Return the metrics of the model as it is; without an epoch, of values that none of them trained."""
    if run.truth is None:
        return {}
    set_mode(run.model, epoch, training=False)
    with run.ranks.together():
        logits = run.streams.valid_logits(epoch)
    # Those of the first process: what is decided by them must not hang on the last digit of another's arithmetic.
    return run.ranks.gather(_metrics(run, logits, run.truth))[0]


def set_mode(model: TaskModel, epoch: Epoch | None, *, training: bool) -> None:
    """Put the model into training or eval mode; where features are cached nothing is run but the head."""
    part = model.head if epoch is not None and epoch.pooled and model.frozen == epoch.frozen else model
    part.train(training)


def _metrics(run: Training, logits: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, float]:
    metrics = compute_metrics(run.model.task, logits if run.scale is None else run.scale.decode(logits), truth, run.train.classes)
    if run.model.task != "regression":
        return metrics
    error = logits - (truth.reshape(logits.shape) if run.scale is None else run.scale.encode(truth))
    return {"loss": float((error**2).mean()), **metrics}
