"""The objective of labelled data: the loss of the model's task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.data.dataset import Batch
from zoo.data.table import Table, flat_targets
from zoo.engine.cache.forward import Forward
from zoo.engine.inference.metrics import compute_metrics
from zoo.engine.inference.window_pooling import pool_windows
from zoo.engine.loading.stream import Source
from zoo.engine.objective.class_weights import class_weights
from zoo.engine.objective.objective import Infer, Objective
from zoo.engine.objective.own_loss import own_losses
from zoo.engine.optim.target_scale import TargetScale, encoded, measure, standard_units
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import has_solvable_head
from zoo.engine.options.model_selection import resolve_monitor
from zoo.engine.options.own_parts import OwnParts, own_metrics
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.solved.augmentation_choice import views_help
from zoo.engine.solved.bias_shift import bias_shift
from zoo.engine.solved.penalties import margin_of
from zoo.engine.solved.solved_head import SolvedHead, is_small_enough, solved_head
from zoo.engine.solved.solved_tasks import solved_tasks
from zoo.errors import DataError, OptionError, count, examples
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tasks.several import SeveralTasks
from zoo.tasks.thresholds import best_thresholds
from zoo.tuning import Regularizers

log = logging.getLogger("zoo")


class Supervised(Objective):
    """Training on labels.

    Args:
        model: The model, on the device it trains on.
        train: Training data.
        valid: Validation data, or None.
        config: The resolved configuration.
        device: Where the model runs.
        penalties: Regularisers, or None.
        own: The user's own loss and metrics, or None.

    Attributes:
        task: The task of the model.
        config: The resolved configuration.
        penalties: Regularisers, or None.
        thresholds: The best ones per class for the logits that were validated last; without validation data for those of held-out
            samples by a solved head, and once more has trained for those of the training samples; or None.
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
        own: OwnParts | None = None,
    ) -> None:
        self.task, self.config = find_task(model.task), config
        self._scale: TargetScale | None = measure(model.head, train, model.num_classes) if self.task.standardized else None
        self._classes, self.penalties, self._own, self._device = train.classes, penalties, own or OwnParts(), device
        self._named = self.task.losses[config.loss] if config.loss else None
        self.cache_obstacle = "a penalty (delta) needs the inputs" if penalties and penalties.needs_inputs else ""
        self.thresholds: tuple[float, ...] | None = None
        self._undefined: set[str] = set()  # own metrics that were NaN or infinite
        self._check_mask(train, valid)
        self._truth: npt.NDArray[Any] | None = None if valid is None else np.asarray(valid.targets)
        weights = class_weights(config.class_weights, self.task, flat_targets(np.asarray(train.targets)), train.classes)
        self._weights, self._smoothing = None if weights is None else weights.to(device), config.label_smoothing
        monitor = resolve_monitor(config.monitor, self.task, self._own.metrics)
        if config.monitor is not None and valid is not None:
            self._check_defined(monitor, valid, model.num_classes)
        lower = monitor in {*self.task.lower_is_better, *self._own.lower}
        sources = {"train": Source(encoded(train, self._scale))}
        super().__init__(model, sources, {} if valid is None else {"valid": valid}, monitor=monitor, lower=lower)

    @property
    def own_augment(self) -> bool:
        """Whether a function of the user's own augments the training images."""
        return self._own.augment is not None

    def _check_mask(self, *tables: Table | None) -> None:
        """Check that a loss of the user's own takes the mask where labels are missing.

        Raises:
            OptionError: If it does not.
        """
        missing = sum(sum(table.missing().values()) for table in tables if table is not None)
        if missing and self._own.loss is not None and not self._own.masks:
            raise OptionError(
                f"loss: {count(missing, 'label')} are missing, and the function takes no mask; write it as loss(logits, targets, mask), "
                "the mask False where a label is missing and its target 0, or take a loss by name"
            )

    def _check_defined(self, monitor: str, valid: Table, outputs: int) -> None:
        """Check that a monitor has a value on the validation data, such as AUROC, which needs two classes.

        Raises:
            DataError: If it has none, whatever the logits.
        """
        if self.task.per_token or monitor == "loss" or monitor not in self.task.monitors:
            return
        found = self.task.metrics(np.zeros((len(valid), outputs)), np.asarray(valid.targets), valid.classes)
        if monitor not in found:
            present = [f"{name} ({number})" for name, number in valid.counts().items() if number]
            what = f"; they have {examples(present)}" if present else ""
            raise DataError(
                f"monitor={monitor!r} has no value on the validation data{what}; choose another monitor or other validation data"
            )

    def weight(self, batch: Mapping[str, Batch]) -> Tensor | float:
        """Return the sum of the weights of the targets."""
        if self._own.loss is not None:
            return float(len(batch["train"].indices))
        return self.task.weight(batch["train"].y, self._weights)

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the sum of the losses of a batch."""
        return self.label_loss(forward(batch["train"].x), batch["train"].y)

    def label_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the losses of logits against targets."""
        if self._own.loss is not None:
            return own_losses(self._own, logits.float(), targets, self.task).sum()
        if self._named is not None:
            return self._named(logits.float(), targets, weights=self._weights, smoothing=self._smoothing)
        return self.task.loss(logits.float(), targets, weights=self._weights, smoothing=self._smoothing)

    def in_training_units(self, values: Tensor) -> Tensor:
        """Return numbers ``(n, outputs)`` in the unit of a run's logits: standard units for a regression."""
        if self._scale is None:
            return values
        return torch.from_numpy(self._scale.encode(values.cpu().numpy())).to(values.device)

    def task_losses(self, logits: Tensor, targets: Tensor) -> list[Tensor]:
        """Return the sum of the losses of each of several tasks, which ``label_loss`` adds up."""
        assert isinstance(self.task, SeveralTasks), "there are several tasks"
        return self.task.losses_by_member(logits.float(), targets, weights=self._weights, smoothing=self._smoothing)

    def can_solve(self, config: Config) -> bool:
        """Return whether the head is linear, the loss convex and the problem small enough."""
        table = self.sources["train"].table
        rows = sum(map(len, table.targets)) if self.task.per_token and table.targets is not None else len(table)
        small = is_small_enough(rows, self.model.spec.features.dim, self.model.num_classes)
        return type(self) is Supervised and self._own.loss is None and small and has_solvable_head(self.model, config)

    def solve(self, features: Tensor, table: Table, *, device: torch.device, seed: int, poll: Callable[[], None]) -> SolvedHead:
        """Return the optimum of the head, whose penalty is chosen by cross-validation.

        Without validation data thresholds are chosen on the probabilities of held-out samples.
        """
        has_bias = self.model.head.linear.bias is not None  # type: ignore[union-attr]  # the head is linear
        shared: dict[str, Any] = {"bias": has_bias, "device": device, "seed": seed, "poll": poll}
        if isinstance(self.task, SeveralTasks):
            return solved_tasks(features, table, self.task, weights=self._weights, smoothing=self._smoothing, **shared)

        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            return self.label_loss(logits[None], targets[None]) if self.task.per_token else self.label_loss(logits, targets)

        each = self.task.losses_by_output
        found = solved_head(
            features,
            table,
            loss,
            outputs=self.model.num_classes,
            by_output=each and partial(each, weights=self._weights, smoothing=self._smoothing),
            held_out=bool(self.task.thresholded) and not self.valid,
            margin=margin_of(self.task, flat_targets(np.asarray(table.targets)), weighted=self._weights is not None),
            **shared,
        )
        if found.held_out is not None:
            # The rows of a text that is read in windows have equal targets.
            logits = pool_windows(found.held_out.numpy(), table, self.task.pool)
            truth = pool_windows(np.asarray(table.targets), table, lambda rows: rows[0])
            held = np.isfinite(logits).all(1)
            self.thresholds = best_thresholds(logits[held], truth[held])
        return found

    @property
    def rechooses_thresholds(self) -> bool:
        """Whether thresholds were chosen for a solved head."""
        return self.thresholds is not None and not self.valid

    def choose_thresholds(self, outputs: npt.NDArray[Any]) -> None:
        """Choose thresholds on the logits of the training samples, which tuning moves away from those of the head alone."""
        table = self.sources["train"].table
        truth = pool_windows(np.asarray(table.targets), table, lambda rows: rows[0])  # equal in the windows of a text
        self.thresholds = best_thresholds(outputs, truth)

    def suits_augmentation(
        self, features: Tensor, views_of: Callable[[int], Sequence[Tensor]], table: Table, *, context: RunContext
    ) -> bool:
        """Return False if augmented views harm the head on held-out samples; else True, also where that cannot be known.

        Args:
            features: Features of the training samples as they are, ``(samples, dim)``.
            views_of: Returns those of so many augmented views of them.
            table: The samples.
            context: The conditions of the run.
        """
        return views_help(
            features,
            views_of,
            table,
            self.model.num_classes,
            self.label_loss,
            device=context.device,
            seed=context.config.seed,
            poll=context.poll,
        )

    def penalty(self, batch: Mapping[str, Batch]) -> Tensor | None:
        """Return the penalties of the regularisers."""
        return self.penalties.penalty(batch["train"].x) if self.penalties else None

    def soften(self, targets: Tensor) -> Tensor:
        """Return targets that mixup can mix, such as one-hot rows."""
        return self.task.soften(targets, self.model.num_classes)

    def refit_bias(self, logits: Tensor, table: Table) -> None:
        """Shift the biases of the linear head by the cross entropy, in which classes count as they did in training; see ``bias_shift``."""
        bias = self.model.head.linear.bias  # type: ignore[union-attr]  # the head is linear
        assert isinstance(bias, Tensor), "the head has biases"
        targets = torch.as_tensor(table.targets)
        drawn = class_weights("balanced" if self.config.balanced_sampling else None, self.task, np.asarray(table.targets), table.classes)
        given = [weights.double().cpu() for weights in (self._weights, drawn) if weights is not None]
        weights = torch.stack(given).prod(0) if given else None
        shift = bias_shift(logits, partial(self.task.loss, targets=targets, weights=weights, smoothing=self._smoothing))
        with torch.no_grad():
            bias.add_(shift.to(bias))

    def validate(self, infer: Infer) -> dict[str, float]:
        """Return the metrics of the task, in the targets' own unit."""
        assert self._truth is not None, "there are no validation data"
        logits, truth = infer("valid"), self._truth
        outputs = logits if self._scale is None else self._scale.decode(logits)
        if self.task.thresholded:
            self.thresholds = best_thresholds(outputs, truth)
        metrics = compute_metrics(self.task, outputs, truth, self._classes)
        metrics |= own_metrics(self._own.metrics, self.task, outputs, truth, undefined=self._undefined)
        if self._own.loss is not None or self._named is not None:
            return metrics | {"loss": self._mean_loss(logits, truth)}
        if not self.task.standardized:
            return metrics
        error = logits - (truth.reshape(logits.shape) if self._scale is None else self._scale.encode(truth))
        return {"loss": float((error**2).mean()), **metrics}

    def _mean_loss(self, logits: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
        """Return the mean training loss of validation logits."""
        targets = torch.from_numpy(truth if self._scale is None else self._scale.encode(truth))
        weights, found = self._weights, torch.from_numpy(np.asarray(logits, dtype=np.float32))
        with torch.no_grad():
            targets = targets.to(self._device)
            total = self.label_loss(found.to(self._device), targets)
        return float(total / (len(targets) if self._own.loss is not None else self.task.weight(targets, weights)))

    def active(self) -> AbstractContextManager[Any]:
        """Make the head of a regression output standard units."""
        return standard_units(self._scale, self.model.head)

    def phase(self) -> AbstractContextManager[Any]:
        """Let the regularisers record forward passes."""
        return self.penalties.watching() if self.penalties else nullcontext()

    def parts(self) -> dict[str, Any]:
        """Return the regularisers, which hold the start values."""
        return {"penalties": self.penalties} if self.penalties else {}

    def state_dict(self) -> dict[str, Any]:
        """Return the thresholds."""
        return {"thresholds": None if self.thresholds is None else list(self.thresholds)}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over the thresholds, in place; checkpoints of zoo 0.1.0 have none."""
        found = state.get("thresholds")
        self.thresholds = None if found is None else tuple(map(float, found))
