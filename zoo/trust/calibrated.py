"""Calibration of a model on held-out data, saved with it: temperature, conformal scores and reference features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.tasks.task import Task
from zoo.trust.calibration import best_temperature
from zoo.trust.conformal import check_level, conformal_scores, cut_off, half_widths, labelled, measured, measured_intervals, sets_of
from zoo.trust.outcome import Array, Outcome, outcome_of
from zoo.trust.outliers import Neighbours, needs_more, neighbours_of


@dataclass(frozen=True, eq=False)
class Calibration:
    """The calibration of a model on held-out data.

    Attributes:
        temperature: Divisor of the logits, 1 for a regression.
        samples: Number of held-out samples.
        scores: How unlikely their true labels are, see ``zoo.trust.conformal.conformal_scores``.
        weights: As there.
        neighbours: Their features, or None where they are too few.
        head: Digest of the head's values that they were computed with.
        data: Digest of the held-out data.
        source: Name of the data.
    """

    temperature: float
    samples: int
    scores: Array
    weights: Array
    neighbours: Neighbours | None
    head: str
    data: str = ""
    source: str = ""

    @property
    def labelled(self) -> int:
        """Number of held-out samples that have a label, on which the highest level of sets depends."""
        return labelled(self.weights)

    def logits(self, logits: Array) -> Array:
        """Return logits ``(n, outputs)`` divided by the temperature."""
        return logits if self.temperature == 1 else np.asarray(logits / self.temperature)

    def sets(self, task: Task, logits: Array, level: float) -> Array:
        """Return which classes belong to the set of each sample, bool ``(n, outputs)``, for logits after the temperature.

        Raises:
            OptionError: If the level is out of range, or there were too few samples.
        """
        cut = cut_off(self.scores, self.weights, check_level(level, self.labelled))
        probabilities = task.probabilities(np.asarray(logits, dtype=np.float64))
        assert probabilities is not None, "a task without probabilities has intervals"
        return sets_of(task, probabilities, cut)

    def intervals(self, outputs: Array, level: float) -> tuple[Array, Array]:
        """Return the lower and the upper ends ``(n, outputs)`` of the intervals of a regression.

        Raises:
            OptionError: As ``sets``.
        """
        half = half_widths(self.scores, check_level(level, self.labelled))
        return outputs - half, outputs + half

    def measured(self, task: Task, outcome: Outcome, level: float) -> dict[str, float]:
        """Return how often the sets of this level hold the truth, and their size, for an outcome after the temperature."""
        if not task.has_classes:
            return measured_intervals(half_widths(self.scores, check_level(level, self.labelled)), outcome)
        return measured(self.sets(task, outcome.logits, level), outcome)

    def outliers(self, features: Array) -> Array:
        """Return how unlike the held-out data samples are; see ``Neighbours.score``.

        Raises:
            OptionError: If there were too few samples.
        """
        if self.neighbours is None:
            raise needs_more(self.samples)
        return self.neighbours.score(features)

    def arrays(self) -> dict[str, Array]:
        """Return what is saved as tensors."""
        features = {} if self.neighbours is None else {"features": self.neighbours.features.astype(np.float16)}
        return {"scores": self.scores, "weights": self.weights} | features

    def fields(self) -> dict[str, Any]:
        """Return what is saved as plain data."""
        names = ("temperature", "samples", "head", "data", "source")
        return {name: getattr(self, name) for name in names} | {"unit": self.neighbours.unit if self.neighbours else 0.0}

    @staticmethod
    def from_saved(fields: Mapping[str, Any], arrays: Mapping[str, Array]) -> Calibration:
        """Return the calibration whose ``fields`` and ``arrays`` these are."""
        features = arrays.get("features")
        neighbours = None if features is None else Neighbours(features.astype(np.float32), float(fields["unit"]))
        plain = {name: fields[name] for name in ("temperature", "samples", "head", "data", "source")}
        return Calibration(scores=arrays["scores"], weights=arrays["weights"], neighbours=neighbours, **plain)


def calibrated(task: Task, logits: Array, targets: Array, features: Array, **named: str) -> Calibration:
    """Return the calibration for the outputs of held-out samples.

    Args:
        task: A built-in task with one row of outputs per sample.
        logits: ``(n, outputs)``.
        targets: One row per sample.
        features: ``(n, dim)``.
        **named: ``head``, ``data`` and ``source``.
    """
    logits = np.asarray(logits, dtype=np.float64)
    temperature = best_temperature(task, logits, targets) if task.has_classes else 1.0
    scores, weights = conformal_scores(outcome_of(task, logits / temperature, targets))
    return Calibration(temperature, len(logits), scores, weights, neighbours_of(features), **named)
