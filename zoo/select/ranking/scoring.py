"""All scores of one candidate from its features: a cross-validated probe with its interval, neighbours, transferability."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.data.table import Array, Table
from zoo.engine.inference.confidence_intervals import drawn_metric, exact_units, interval_of
from zoo.engine.inference.metrics import compute_metrics, drawn_groups
from zoo.engine.optim.target_scale import TargetScale
from zoo.engine.solved.fitted_layers import Rows
from zoo.engine.solved.head_solver import held_out_logits
from zoo.engine.solved.penalties import margin_of
from zoo.errors import DataError
from zoo.select.ranking.row import Judged
from zoo.select.transferability.class_scatter import h_score, regularized_h_score, transrate
from zoo.select.transferability.log_evidence import logme
from zoo.select.transferability.neighbours import neighbour_votes
from zoo.select.transferability.products import Products
from zoo.select.transferability.source_labels import leep, nce
from zoo.tasks.task import Task

Folds = Sequence[tuple[Rows, Rows]]


class Scorer:
    """Scores features of the same samples, with the same folds and draws for every candidate.

    Args:
        table: The samples with their labels; its inputs are not read.
        task: The task.
        metric: The metric of the probe.
        folds: Training and held-out rows.
        device: Where the probe is solved.
        poll: Called now and then; may raise to stop.
    """

    def __init__(self, table: Table, task: Task, metric: str, folds: Folds, *, device: torch.device, poll: Callable[[], None]) -> None:
        self._table, self._task, self._metric, self._folds = table, task, metric, folds
        self._device, self._poll = device, poll
        self._drawn: dict[tuple[bytes, int, int], Array] = {}
        self._targets: Array = np.asarray(table.targets)
        self._outputs = task.outputs(self._targets, table.classes)
        self._scale = TargetScale.of(self._targets, self._outputs) if task.standardized else None

    def probe(self, features: Tensor) -> Judged:
        """Return the metric of linear layers on samples that they were not fitted on, with a bootstrap over these (Efron 1979).

        The draws say how the held-out samples would vary, not how other training samples would.

        Args:
            features: ``(samples, dim)``, finite.
        """
        started = time.perf_counter()
        encoded = self._targets if self._scale is None else self._scale.encode(self._targets)
        y = torch.as_tensor(encoded).to(self._device)

        def loss(logits: Tensor, rows: Rows) -> Tensor:
            return self._task.loss(logits, y[torch.from_numpy(rows).to(self._device)])

        placed = features.to(self._device) if self._device.type == "cuda" else features  # other devices may lack float64
        margin = margin_of(self._task, self._targets)
        logits = held_out_logits(placed, self._outputs, loss, self._folds, device=self._device, margin=margin, poll=self._poll)[0].numpy()
        outputs = logits if self._scale is None else self._scale.decode(logits)
        return self.judged(outputs, time.perf_counter() - started)

    def judged(self, outputs: npt.NDArray[Any], seconds: float) -> Judged:
        """Return the metric of held-out outputs, ``(samples, outputs)``, NaN for samples that are not held out."""
        rows = np.flatnonzero(np.isfinite(outputs).all(1))
        return judge(self._task, self._metric, outputs[rows], self._table.select(rows), seconds=seconds, known=self._drawn)

    def scores(self, features: Tensor, source: npt.NDArray[np.float64] | None) -> dict[str, float]:
        """Return the scores beside the probe that the task has, by name; higher is better.

        Args:
            features: ``(samples, dim)``, finite.
            source: Probabilities of the source classes, or None.
        """
        f = features.numpy()
        found = {}
        if self._task.exclusive or not self._task.has_classes:
            outputs = neighbour_votes(f, self._targets, self._folds, self._outputs)
            rows = np.flatnonzero(np.isfinite(outputs).all(1))
            measured = compute_metrics(self._task, outputs[rows], self._targets[rows], self._table.classes)
            sign = -1.0 if self._metric in self._task.lower_is_better else 1.0
            products = Products(f)  # one of all scores below
            found = {"knn": sign * measured.get(self._metric, float("nan")), "logme": logme(products, self._targets)}
            self._poll()
            if self._task.exclusive:
                found |= {"h_score": h_score(products, self._targets), "transrate": transrate(products, self._targets)}
                found |= {"regularized_h_score": regularized_h_score(products, self._targets)}
        if self._task.exclusive and source is not None:
            found |= {"leep": leep(source, self._targets), "nce": nce(source.argmax(1), self._targets)}
        return found


def judge(
    task: Task,
    metric: str,
    outputs: npt.NDArray[Any],
    table: Table,
    *,
    seconds: float,
    epochs: int = 0,
    known: dict[tuple[bytes, int, int], Array] | None = None,
) -> Judged:
    """Return a metric of outputs with its interval, and its draws.

    Args:
        task: The task.
        metric: Name of the metric.
        outputs: ``(samples, outputs)``, finite.
        table: The samples.
        seconds: What they took.
        epochs: Epochs of tuning.
        known: Draws of earlier calls, see ``drawn_metric``.
    """
    targets = np.asarray(table.targets)
    score = compute_metrics(task, outputs, targets, table.classes).get(metric, float("nan"))
    groups = None if table.groups is None else drawn_groups(table)
    try:
        draws = drawn_metric(metric, task.name, np.asarray(outputs), targets, groups=groups, known=known)
    except DataError:  # a single group
        draws = np.array([])
    low, high = interval_of(draws, units=exact_units(task.name, metric, targets, groups)) or (None, None)
    return Judged(float(score), low, high, tuple(draws.tolist()), seconds, epochs)
