"""One of several tasks: its place among the outputs and targets of all, and the names of its classes there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.table import Part
from zoo.tasks.task import Array, Task

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Member:
    """One of several tasks.

    Attributes:
        name: Its name.
        task: Its kind.
        outputs: Its number of outputs; 0 where the data are to say it.
        start: Its first output.
    """

    name: str
    task: Task
    outputs: int = 0
    start: int = 0

    @property
    def columns(self) -> slice:
        """Its outputs among those of all."""
        return slice(self.start, self.start + self.outputs)

    @property
    def written(self) -> str:
        """Its part of the name of all, such as ``kind=single-label:5``."""
        return f"{self.name}={self.task.name}" + (f":{self.outputs}" if self.outputs else "")

    @property
    def part(self) -> Part:
        """Its columns in a table."""
        kind = "labels" if self.task.partial else "class" if self.task.has_classes else "number"
        return Part(self.name, self.start, self.start + self.outputs, kind)  # type: ignore[arg-type]  # one of three

    @property
    def score(self) -> str:
        """Its metric in the mean: the first whose highest value is the best, such as accuracy, map or r2; empty if it has none."""
        return next((name for name in self.task.monitors if name not in self.task.lower_is_better), "")

    def own_classes(self, classes: Sequence[Any] | None) -> tuple[Any, ...] | None:
        """Return the classes of this task among the names of all outputs, or their numbers; None where there are none."""
        if classes is None or not self.task.has_classes:
            return None
        if classes and not isinstance(classes[0], str):
            return tuple(range(self.outputs))
        start = f"{self.name}/"
        return tuple(name[len(start) :] for name in classes if name.startswith(start)) or None

    def names(self, classes: Sequence[str], outputs: int) -> list[str]:
        """Return the names of the outputs of this task among those of all."""
        if self.task.has_classes:
            return [f"{self.name}/{name}" for name in classes]
        return [self.name] if outputs == 1 else [f"{self.name}/{number + 1}" for number in range(outputs)]

    def count(self, classes: Sequence[str]) -> int:
        """Return how many of the names of all outputs are of this task."""
        return sum(name == self.name or name.startswith(f"{self.name}/") for name in classes)

    def truth(self, targets: Array) -> Array:
        """Return the targets of this task, as it reads them, of rows ``(n, all outputs)`` that have some."""
        own = targets[:, self.columns]
        if self.task.has_classes and not self.task.partial:
            return np.asarray(own.argmax(1), dtype=np.int64)
        return own[:, 0] if self.outputs == 1 and not self.task.has_classes else own

    def spread(self, targets: Array, outputs: int) -> Array:
        """Return encoded targets of this task as columns, one-hot for classes; the inverse of ``truth``."""
        if self.task.has_classes and not self.task.partial:
            return np.eye(outputs, dtype=np.float32)[np.asarray(targets, dtype=np.int64)]
        return np.asarray(targets, dtype=np.float32).reshape(len(targets), outputs)

    def loss(self, logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        """Return the sum of the losses of the samples that have a label of this task, each the mean over its labels or numbers.

        Args:
            logits: Of all tasks, ``(batch, all outputs)``.
            targets: Of all tasks, NaN where a label is missing.
            weights: Per output of all tasks, or None.
            smoothing: Label smoothing.
        """
        own = targets[:, self.columns]
        known = ~own.isnan().all(1)
        own = own[known]
        if self.task.has_classes and not self.task.partial and not self.task.exclusive:
            own = own.argmax(1)  # a plugin's classes; those of single-label may be mixed
        elif not self.task.has_classes and self.outputs == 1:
            own = own[:, 0]
        of_task = None if weights is None or not self.task.has_classes else weights[self.columns]
        found = self.task.loss(logits[known][:, self.columns], own, weights=of_task, smoothing=smoothing if self.task.has_classes else 0.0)
        return found / self.unit

    @property
    def unit(self) -> int:
        """How many terms the loss of one sample has."""
        return self.outputs if self.task.partial or not self.task.has_classes else 1
