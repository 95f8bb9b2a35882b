"""The base class of tasks. Imports neither torch nor numpy, so that tasks can be listed and checked without them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from zoo.tasks.losses import NamedLoss

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

Array: TypeAlias = "npt.NDArray[Any]"


class Task:
    """A kind of prediction: targets, loss, metrics and decoding.

    A subclass sets the attributes, and writes at least ``encode``, ``loss`` (or ``losses``), ``metrics`` and ``decode``; without
    classes (``has_classes = False``) ``outputs`` too.

    Attributes:
        name: Name for ``adapt(task=…)``.
        monitors: Metrics that may choose the best epoch; the first is the default, see ``default_monitor``.
        lower_is_better: Monitors whose lowest value is the best.
        head: The default head.
        per_token: Whether each token of a text has logits and a target.
        has_classes: Whether the targets are classes with names.
        exclusive: Whether each sample has exactly one class.
        has_specificity: Whether there is a sensitivity at a specificity.
        least_outputs: Minimum number of outputs.
        thresholded: Metrics that depend on a threshold per class; such a task decides by logits above zero, and has probabilities.
        standardized: Whether the head learns targets in standard units, and computes in float32.
        empty_is_none: Whether an empty label means "none of the classes" and not a missing one.
        partial: Whether some labels of a sample may be missing: NaN in its row of the targets, -1 from ``encode`` for an uncertain one.
        recipe: The default recipe, with the fields that differ; None for the general default.
        losses: Losses that a run can select by name, see ``zoo.tasks.losses``; the first is the task's own.
        losses_by_output: The losses ``(outputs,)`` that a convex loss adds up, where each output has one of its own; else None.
        convex: Whether the task's own loss is convex in the logits though it is none of ``losses``.
        useless: Options of a run without effect, with the reason.
        card: Name on the model card, by modality.
    """

    name: ClassVar[str]
    monitors: ClassVar[tuple[str, ...]] = ("loss",)
    lower_is_better: ClassVar[Collection[str]] = frozenset({"loss"})
    head: ClassVar[str] = "linear"
    per_token: ClassVar[bool] = False
    has_classes: ClassVar[bool] = True
    exclusive: ClassVar[bool] = False
    has_specificity: ClassVar[bool] = False
    least_outputs: ClassVar[int] = 1
    thresholded: ClassVar[Collection[str]] = frozenset()
    standardized: ClassVar[bool] = False
    empty_is_none: ClassVar[bool] = False
    partial: ClassVar[bool] = False
    recipe: ClassVar[tuple[str, Mapping[str, Any]] | None] = None
    losses: ClassVar[Mapping[str, NamedLoss]] = MappingProxyType({})
    losses_by_output: ClassVar[NamedLoss | None] = None
    convex: ClassVar[bool] = False
    useless: ClassVar[Mapping[str, str]] = MappingProxyType({})
    card: ClassVar[Mapping[str, str]] = MappingProxyType({"image": "image-classification", "text": "text-classification"})

    @property
    def words(self) -> str:
        """The task for a sentence that begins with "the task is"."""
        return self.name

    def parse(self, labels: Sequence[Any], classes: Sequence[str] | None, source: str) -> Sequence[Any]:
        """Return labels in the form that was decided over all of them, which ``encode`` takes as it is; by default unchanged.

        Training and validation labels are parsed together, so that equal cells mean the same in both.
        """
        return labels

    def encode(
        self, labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
    ) -> tuple[Array, tuple[str, ...]]:
        """Encode labels as targets.

        Args:
            labels: One per sample, stripped, none missing.
            inputs: The samples, for error messages.
            classes: The classes to use, or None to find them.
            source: Name of the data, for messages.

        Returns:
            Targets as ``zoo.data.table.Table`` describes them, and the names of the classes, if there are any.

        Raises:
            DataError: If labels are not of the task's kind or none of ``classes``; all faults at once.
        """
        raise TypeError(f"task {self.name!r} has no encode()")

    def outputs(self, targets: Array, classes: Sequence[str]) -> int:
        """Return the number of outputs that a model needs for these targets."""
        return len(classes)

    def loss(self, logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        """Return the sum of the losses of a batch.

        Args:
            logits: ``(batch, outputs)``, float32; for tokens ``(batch, tokens, outputs)``.
            targets: One row per sample.
            weights: A weight per class, or None.
            smoothing: Label smoothing, in [0, 1).
        """
        if not self.losses:
            raise TypeError(f"task {self.name!r} has no loss()")
        return next(iter(self.losses.values()))(logits, targets, weights=weights, smoothing=smoothing)

    def weight(self, targets: Tensor, weights: Tensor | None = None) -> Tensor | float:
        """Return the divisor of the sum over ``targets`` for the mean; above zero.

        It is a number if that needs no values, as reading them would wait for a GPU.
        """
        return float(len(targets))

    def soften(self, targets: Tensor, outputs: int) -> Tensor:
        """Return targets that mixup can mix."""
        return targets

    def class_weights(self, targets: Array, classes: Sequence[str]) -> Array:
        """Return the weights per class of ``class_weights="balanced"``: n / (classes * count), as scikit-learn's."""
        import numpy as np

        counts = np.maximum(np.bincount(targets.astype(np.int64), minlength=len(classes)), 1)
        return np.asarray(len(targets) / (len(classes) * counts))

    def metrics(self, logits: Array, targets: Array, classes: Sequence[str]) -> dict[str, float]:
        """Return the metrics; those that the data leave undefined are omitted.

        Args:
            logits: ``(n, outputs)``, float64; for words an array of n arrays.
            targets: One row per sample.
            classes: Names of the classes.
        """
        raise TypeError(f"task {self.name!r} has no metrics()")

    def log_loss(self, logits: Array, targets: Array) -> float:
        """Return ``loss`` of ``metrics`` alone, for a search that needs it often; NaN where it is undefined.

        Args:
            logits: ``(n, outputs)``, float64.
            targets: One row per sample.
        """
        return self.metrics(logits, targets, ()).get("loss", float("nan"))

    def is_skewed(self, targets: Array) -> bool:
        """Return whether one class is so common that accuracy hardly sees the others.

        Args:
            targets: Those of the training data.
        """
        return False

    def default_monitor(self, targets: Array, *, medical: bool = False) -> str:
        """Return the metric that chooses the best epoch unless one is named.

        Args:
            targets: Those of the training data.
            medical: Whether the samples are medical images or volumes.
        """
        return self.monitors[0]

    def weighted_metrics(self, logits: Array, targets: Array, weights: Array) -> dict[str, Array] | None:
        """Return each metric for each row of ``weights`` ``(draws, n)``, for confidence intervals; None if the task has none.

        Args:
            logits: ``(n, outputs)``.
            targets: One row per sample.
            weights: How often each sample counts, per draw.
        """
        return None

    def weighted_metric(self, name: str, logits: Array, targets: Array, weights: Array) -> Array | None:
        """Return one metric of ``weighted_metrics``, None if the task has none of this name; a task overrides it where that is faster."""
        return (self.weighted_metrics(logits, targets, weights) or {}).get(name)

    def pool(self, logits: Array) -> Array:
        """Return the logits ``(outputs,)`` of a text for those of its windows ``(windows, outputs)``; by default their mean."""
        return logits.mean(0)  # type: ignore[no-any-return]  # of an array

    def probabilities(self, logits: Array) -> Array | None:
        """Return probabilities ``(n, outputs)``; None if the task has none."""
        return None

    def decode(self, logits: Array, labels: Sequence[Any]) -> list[Any]:
        """Return the prediction for each sample.

        Args:
            logits: ``(n, outputs)``, float32; for words an array of n arrays.
            labels: Names of the classes, or their indices if they have no names.
        """
        raise TypeError(f"task {self.name!r} has no decode()")

    def __repr__(self) -> str:
        return f"<task {self.name}>"


BUILTIN_NAMES = ("single-label", "multi-label", "regression", "token-classification")


def faults_of_task(task: Task) -> list[str]:
    """Return what a plugin's task lacks, before data are read for it."""
    kind, name = type(task), getattr(task, "name", None)
    if not isinstance(name, str) or not name:
        return ["it has no name"]
    needed = ["encode", "metrics", "decode", *([] if task.losses else ["loss"]), *([] if task.has_classes else ["outputs"])]
    faults = [f"it has no {method}()" for method in needed if getattr(kind, method) is getattr(Task, method)]
    return faults + ([f"the name {name!r} is that of a built-in task; choose another"] if name in BUILTIN_NAMES else [])
