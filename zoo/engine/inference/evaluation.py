"""The result of an evaluation: metrics, and the predictions that they were computed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from zoo.data.table import Table, flat_targets, names_of
from zoo.engine.inference.decoding.decoder import Array, Decoder
from zoo.engine.inference.decoding.result_columns import Column, Columns, result_columns
from zoo.errors import LISTED, OptionError, did_you_mean, examples
from zoo.tasks.several import SeveralTasks
from zoo.tasks.single_label import SingleLabel
from zoo.tasks.thresholds import USUAL, moved
from zoo.trust.baselines import baselines
from zoo.trust.metric_table import Metric
from zoo.trust.outcome import outcome_of
from zoo.trust.selective import risk_coverage


class Evaluation(dict[str, float]):
    """Metrics by name, as a dict; the predictions behind them on request.

    Attributes:
        rows: Numbers of the samples that were read.
        errors: Why the other samples could not be read, by their number.
    """

    def __init__(
        self,
        metrics: Mapping[str, float],
        decoder: Decoder,
        table: Table,
        logits: Array,
        errors: Mapping[int, str],
        named: Mapping[str, Metric] = MappingProxyType({}),
    ) -> None:
        super().__init__(metrics)
        self.errors = dict(errors)
        self.rows = [row for row in range(len(table)) if row not in self.errors]
        self._decoder, self._table, self._logits = decoder, table, logits
        self._named = dict(named)

    @property
    def table(self) -> Table:
        """The samples that were read."""
        return self._table.select(self.rows) if self.errors else self._table

    @property
    def outputs(self) -> Array:
        """The logits, or outputs, of the samples that were read, after the temperature of a calibration."""
        return self._decoder.logits(self._good())

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """Probability above which each label was predicted; None for one half."""
        return self._decoder.thresholds

    def predictions(self) -> dict[str, list[Any]]:
        """Return columns with one row per sample, or per word; see docs/predictions.md. ``pandas.DataFrame`` takes them."""
        return plain(self.columns())

    def columns(self) -> Columns:
        """Return ``predictions`` with the types of its columns."""
        columns = result_columns(self._decoder, self._table, range(len(self._table)), self._logits, self.errors)
        return columns if self.errors else {name: column for name, column in columns.items() if name != "error"}

    def of(self, task: str) -> Evaluation:
        """Return the evaluation of one of several tasks, on the samples that have a label of it.

        Raises:
            OptionError: If there is no such task.
        """
        several = self._decoder.task
        names = several.names if isinstance(several, SeveralTasks) else []
        if task not in names:
            known = f"the tasks are: {examples(names, LISTED)}" if names else "there is one task, and this is its evaluation"
            raise OptionError(f"there is no task {task!r}{did_you_mean(task, names)}; {known}")
        assert isinstance(several, SeveralTasks), "it has names"
        member, table = several.members[names.index(task)], self.table
        rows = member.part.known(np.asarray(table.targets))
        chosen = table.select(rows)
        own = replace(chosen, targets=member.truth(np.asarray(chosen.targets)), classes=member.own_classes(table.classes) or (), parts=())
        metrics = {name.partition("/")[2]: value for name, value in self.items() if name.startswith(f"{task}/")}
        return Evaluation(metrics, self._decoder.of(member), own, self.outputs[rows][:, member.columns], {})

    def _refuse_several(self, what: str) -> None:
        if isinstance(self._decoder.task, SeveralTasks):
            names = self._decoder.task.names
            raise OptionError(
                f"{what} is for one task, and there are several: evaluation.of({names[0]!r}).{what}(); they are: {examples(names, LISTED)}"
            )

    def baselines(self) -> dict[str, dict[str, float]]:
        """Return the metrics of answers that cost nothing: ``prior``, the frequencies of the classes among these data, and ``random``.

        Empty for tasks of plugins.
        """
        if isinstance(self._decoder.task, SeveralTasks):
            by_task = {name: self.of(name).baselines() for name in self._decoder.task.names}
            found: dict[str, dict[str, float]] = {}
            for name, answers in by_task.items():
                for answer, metrics in answers.items():
                    found.setdefault(answer, {}).update({f"{name}/{key}": value for key, value in metrics.items()})
            return found
        targets, known = np.asarray(self._truth()), {name: metric for name, metric in self._named.items() if name in self}
        return baselines(self._decoder.task, targets, self._table.classes, self._decoder.outputs, known)

    def selective(self) -> dict[str, list[float]]:
        """Return the risk-coverage curve of one class per sample: ``coverage``, ``risk`` and ``confidence``, the most confident first.

        ``risk`` is the share of mistakes among the samples whose predicted class has at least this probability, ``coverage`` their share.

        Raises:
            OptionError: If the task has not one class per sample.
        """
        self._refuse_several("selective")
        task = self._decoder.task
        if not isinstance(task, SingleLabel):
            raise OptionError(f"selective is for one class per sample; the task is {task.words}")
        outcome = outcome_of(task, self.outputs, self._truth())
        return dict(zip(("coverage", "risk", "confidence"), (column.tolist() for column in risk_coverage(outcome)), strict=True))

    def confusion(self) -> tuple[list[str], Array]:
        """Return the classes and how often each (row) was predicted as each (column), int64 ``(classes, classes)``.

        Raises:
            OptionError: If the task has not one class per sample or word.
        """
        self._refuse_several("confusion")
        task = self._decoder.task
        if not task.has_classes or task.thresholded:
            raise OptionError(f"confusion is for one class per sample or word; the task is {task.words}; see per_class()")
        names = self._decoder.names
        matrix = np.zeros((len(names), len(names)), dtype=np.int64)
        np.add.at(matrix, (flat_targets(self._truth()), self._predicted()), 1)
        return names, matrix

    def per_class(self) -> dict[str, dict[str, float]]:
        """Return ``precision``, ``recall``, ``f1`` and ``samples`` (or words) of each class; multi-label its ``threshold`` too.

        A value is NaN if the data leave it undefined, such as the recall of a class without samples.

        Raises:
            OptionError: If the task has no classes.
        """
        self._refuse_several("per_class")
        if not self._decoder.task.has_classes:
            raise OptionError(f"per_class is for classes; the task is {self._decoder.task.words}")
        truth, named = self._indicators()
        right, found, samples = (truth & named).sum(0), named.sum(0), truth.sum(0)
        with np.errstate(invalid="ignore"):
            columns = {"precision": right / found, "recall": right / samples, "f1": 2 * right / (found + samples), "samples": samples}
        if self._decoder.task.thresholded:
            columns["threshold"] = np.asarray(self._decoder.thresholds or (USUAL,) * len(self._decoder.names))
        return {name: {key: values[k].item() for key, values in columns.items()} for k, name in enumerate(self._decoder.names)}

    def mistakes(self) -> dict[str, list[Any]]:
        """Return the wrong predictions as columns, the most confident first.

        One row per sample, or per word, with ``truth``, ``prediction`` and its ``probability``; multi-label one row per wrong label,
        by the distance of its probability from the threshold; regression by the difference between prediction and truth.
        """
        return plain(self.mistake_columns())

    def mistake_columns(self) -> Columns:
        """Return ``mistakes`` with the types of its columns."""
        self._refuse_several("mistakes")
        task = self._decoder.task
        if not task.has_classes:
            return self._differences()
        return self._wrong_labels() if task.thresholded else self._wrong_classes()

    def _wrong_classes(self) -> Columns:
        truth, predicted = flat_targets(self._truth()), self._predicted()
        sure = np.zeros(len(predicted), dtype=np.float32)
        if self._decoder.has_probabilities:
            shares = self._decoder.probabilities(self._good())
            rows = np.concatenate(list(shares)) if shares.dtype == object else shares
            sure = np.nan_to_num(rows[np.arange(len(rows)), predicted])
        wrong = np.flatnonzero(truth != predicted)
        order = wrong[np.argsort(-sure[wrong], kind="stable")]
        columns = {name: column for name, column in self._read_columns().items() if not name.startswith("probability_")}
        return _picked(columns, order) | {"probability": Column("share", sure[order].astype(np.float32))}

    def _wrong_labels(self) -> Columns:
        truth, named = self._indicators()
        shares = self._decoder.probabilities(self._good())
        far = np.abs(shares - np.asarray(self._decoder.thresholds or (USUAL,) * shares.shape[1]))
        places, labels = np.nonzero(truth != named)
        order = np.argsort(-far[places, labels], kind="stable")
        places, labels = places[order], labels[order]
        rows = [self.rows[place] for place in places]
        return {
            "input": Column("text", names_of(self._table.inputs, rows)),
            "label": Column("text", [self._decoder.names[k] for k in labels]),
            "truth": Column("whole", truth[places, labels].astype(np.int64)),
            "prediction": Column("whole", named[places, labels].astype(np.int64)),
            "probability": Column("share", shares[places, labels]),
        }

    def _differences(self) -> Columns:
        outputs = self._good().astype(np.float64)
        off = np.abs(outputs - np.asarray(self._truth(), dtype=np.float64).reshape(outputs.shape)).max(1)
        order = np.argsort(-off, kind="stable")
        return _picked(self._read_columns(), order) | {"difference": Column("number", off[order])}

    def _read_columns(self) -> Columns:
        """Return the columns of the samples that were read."""
        columns = result_columns(self._decoder, self._table, self.rows, self._good(), {})
        return {name: column for name, column in columns.items() if name != "error"}

    def _good(self) -> Array:
        return self._logits[self.rows]

    def _truth(self) -> Array:
        targets = self._table.targets
        assert targets is not None, "an evaluation has labels"
        return targets[self.rows]

    def _predicted(self) -> Array:
        """Return the number of the predicted class of each sample or word."""
        place = {name: k for k, name in enumerate(self._decoder.names)}
        found = self._decoder.decode(self._good())
        flat = [label for row in found for label in row] if self._decoder.task.per_token else found
        return np.asarray([place[str(label)] for label in flat], dtype=np.int64)

    def _indicators(self) -> tuple[Array, Array]:
        """Return the true and the predicted classes as bool ``(samples, classes)``; a missing label is neither."""
        if self._decoder.task.thresholded:
            truth = self._truth()
            return truth > USUAL, (moved(self.outputs, self._decoder.thresholds) > 0) & ~np.isnan(truth)
        eye = np.eye(len(self._decoder.names), dtype=bool)
        return eye[flat_targets(self._truth())], eye[self._predicted()]


def _picked(columns: Columns, places: Array) -> Columns:
    return {name: Column(column.kind, [column.values[int(place)] for place in places]) for name, column in columns.items()}


def plain(columns: Columns) -> dict[str, list[Any]]:
    """Return columns as plain lists by name."""
    return {
        name: column.values.tolist() if isinstance(column.values, np.ndarray) else list(column.values) for name, column in columns.items()
    }
