"""Results of a model as columns of a table: what was read, the truth where it is known, predictions and probabilities."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.data.table import Table, names_of
from zoo.engine.loading.stream import Function
from zoo.errors import OptionError
from zoo.models.ensemble import Ensemble
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tasks.member import Member
from zoo.tasks.several import SeveralTasks
from zoo.tasks.task import Task
from zoo.tasks.thresholds import USUAL, Wanted, check_thresholds, moved
from zoo.trust.calibrated import Calibration
from zoo.trust.conformal import check_level
from zoo.trust.outliers import needs_more
from zoo.trust.stale_calibration import current_calibration

log = logging.getLogger("zoo")
Array: TypeAlias = "npt.NDArray[Any]"
Kind = Literal["text", "whole", "number", "share", "vector"]


class Column(NamedTuple):
    """Values of one kind, None where there is none.

    Attributes:
        kind: ``text``, ``whole`` (int64), ``number`` (float64), ``share`` (float32) or ``vector`` (float32 rows).
        values: One per row, a list or an array.
    """

    kind: Kind
    values: Any


Columns: TypeAlias = "dict[str, Column]"


@dataclass(frozen=True)
class Decoder:
    """The predictions of a task from the outputs of a model.

    Attributes:
        task: The task.
        labels: Names of the classes, or their numbers.
        outputs: Number of outputs.
        thresholds: Probability above which each label is predicted; None for one half.
        calibration: That of the model, or None.
        sets: How often a prediction set is to hold the truth, or None for no sets.
        ood: Whether the outputs have pooled features behind the logits, for scores of outliers.
    """

    task: Task
    labels: Sequence[Any]
    outputs: int
    thresholds: tuple[float, ...] | None = None
    calibration: Calibration | None = None
    sets: float | None = None
    ood: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        return list(map(str, self.labels))

    @property
    def of_classes(self) -> list[bool]:
        """Whether each output is that of a class and not a number."""
        members = self.task.members if isinstance(self.task, SeveralTasks) else ()
        return [one.task.has_classes for one in members for _ in range(one.outputs)] or [self.task.has_classes] * self.outputs

    def of(self, member: Member) -> Decoder:
        """Return the decoder of one of several tasks, for its outputs alone."""
        return Decoder(member.task, member.own_classes(self.labels) or range(member.outputs), member.outputs)

    @property
    def has_probabilities(self) -> bool:
        """Whether the task has probabilities."""
        return type(self.task).probabilities is not Task.probabilities

    def forward(self, model: TaskModel) -> Function:
        """Return the function of a model that gives the outputs which are decoded."""
        return model.outputs_and_features if self.ood else model

    def logits(self, outputs: Array) -> Array:
        """Return the logits among outputs, divided by the temperature of the calibration."""
        if outputs.dtype == object:
            return outputs
        logits = outputs[:, : self.outputs]
        return logits if self.calibration is None else self.calibration.logits(logits)

    def decode(self, outputs: Array) -> list[Any]:
        """Return the prediction for each row of outputs."""
        return self.task.decode(moved(self.logits(outputs), self.thresholds), self.labels)

    def set_labels(self, outputs: Array) -> list[tuple[Any, ...]]:
        """Return the classes of each prediction set, the likeliest first; of a regression the two ends of each interval."""
        assert self.calibration is not None, "sets need a calibration"
        assert self.sets is not None, "sets have a level"
        logits = self.logits(outputs).astype(np.float64)
        if not self.task.has_classes:
            low, high = self.calibration.intervals(logits, self.sets)
            pairs = np.stack([low, high], 2).tolist()
            return [tuple(row[0]) if len(row) == 1 else tuple(map(tuple, row)) for row in pairs]
        chosen, order = self.calibration.sets(self.task, logits, self.sets), np.argsort(-logits, axis=1, kind="stable")
        return [tuple(self.labels[int(k)] for k in likely if row[k]) for row, likely in zip(chosen, order, strict=True)]

    def ood_scores(self, outputs: Array) -> Array:
        """Return how unlike the data of the calibration each row is, float32 ``(n,)``."""
        assert self.calibration is not None, "scores of outliers need a calibration"
        return self.calibration.outliers(outputs[:, self.outputs :])

    def probabilities(self, outputs: Array) -> Array:
        """Return the probabilities for outputs, float32; for words an array of arrays.

        Raises:
            OptionError: If the task has none.
        """
        logits = self.logits(outputs)
        found = self.task.probabilities(logits if logits.dtype == object else logits.astype(np.float64))
        if found is None:
            raise OptionError(f"the task {self.task.name!r} has no probabilities; use predict()")
        return found if found.dtype == object else np.asarray(found, dtype=np.float32)


def decoder_of(
    model: TaskModel, thresholds: Wanted | None = None, *, sets: float | None = None, ood: bool = False, predicts: bool = True
) -> Decoder:
    """Return the decoder of a model with its own calibration and thresholds, or with the thresholds that are given.

    Args:
        model: The model.
        thresholds: One for all labels, one per label, or some by label; None takes those of the model.
        sets: How often a prediction set is to hold the truth; None for no sets.
        ood: Whether outputs have pooled features behind the logits.
        predicts: Whether outputs of the head are wanted, of which a random one is warned of.

    Raises:
        OptionError: If the thresholds do not fit the model, or it is not calibrated, or on too few samples.
    """
    if model.has_random_head and predicts:
        log.warning("%s: %s", model.spec.name, model.random_head_warning)
    task, labels = find_task(model.task), model.labels or range(model.num_classes)
    own = model.thresholds if task.thresholded else None
    wanted = own if thresholds is None else check_thresholds(task, thresholds, list(map(str, labels)), own)
    calibration = model.calibration and current_calibration(model.calibration, model.head)
    if calibration is None and (sets is not None or ood):
        asked = "prediction sets (sets)" if sets is not None else "scores of outliers (ood)"
        remedy = "calibrate it on held-out data first: model.calibrate(data), or: zoo calibrate MODEL DATA"
        if isinstance(model, Ensemble):
            remedy = "an ensemble takes none: calibrate a member, or one model distilled from it (--objective distill)"
        raise OptionError(f"{asked} need a calibration, which the model has not; {remedy}")
    if sets is not None and calibration is not None:
        check_level(sets, calibration.labelled)
    if ood and calibration is not None and calibration.neighbours is None:
        raise needs_more(calibration.samples)
    return Decoder(task, labels, model.num_classes, wanted, calibration, sets, ood)


def result_columns(decoder: Decoder, table: Table, rows: Sequence[int], logits: Array, errors: Mapping[int, str]) -> Columns:
    """Return one row per sample: ``input``, ``group``, ``truth``, ``prediction``, ``probability_CLASS``, ``error``.

    With prediction sets also ``set``, of a regression ``low`` and ``high``; with scores of outliers ``ood``. For words one row per
    word, with ``row`` and ``word`` in place of ``input``.

    Args:
        decoder: Of the model.
        table: The data; ``truth`` and ``group`` are there if it has them.
        rows: Numbers of the samples.
        logits: One row per sample, ``(rows, 0)`` if none could be read.
        errors: Why a sample could not be read, by its number.
    """
    if decoder.task.per_token:
        return _word_columns(decoder, table, rows, logits, errors)
    columns = {"input": Column("text", names_of(table.inputs, rows))}
    if table.groups is not None:
        columns["group"] = Column("text", [table.groups[row] for row in rows])
    targets = None if table.targets is None else table.targets[np.asarray(rows, dtype=np.int64)]
    good = [place for place, row in enumerate(rows) if row not in errors]
    if isinstance(decoder.task, SeveralTasks):
        columns |= _columns_by_task(decoder, targets, logits, good, len(rows))
    else:
        columns |= {} if targets is None else _truth(decoder, targets)
        columns |= _predictions(decoder, logits, good, len(rows)) | _trust(decoder, logits, good, len(rows))
    return columns | {"error": Column("text", [errors.get(row) for row in rows])}


def _columns_by_task(decoder: Decoder, targets: Array | None, logits: Array, good: Sequence[int], count: int) -> Columns:
    """Return the columns of each of several tasks, with its name behind the first word: ``truth_kind``, ``probability_kind_cat``."""
    assert isinstance(decoder.task, SeveralTasks), "there are several tasks"
    columns: Columns = {}
    for member in decoder.task.members:
        own = decoder.of(member)
        found = {} if targets is None else _known_truth(own, member, targets)
        found |= _predictions(own, logits[:, member.columns] if good else logits, good, count)
        for name, column in found.items():
            first, line, rest = name.partition("_")
            columns[f"{first}_{member.name}{line}{rest}"] = column
    return columns


def _known_truth(decoder: Decoder, member: Member, targets: Array) -> Columns:
    """Return the truth of one of several tasks, None where its label is missing."""
    rows = member.part.known(targets)
    places: list[int | None] = [None] * len(targets)
    for place, row in enumerate(rows.tolist()):
        places[row] = place
    known = _truth(decoder, member.truth(targets[rows]))
    return {
        name: Column(column.kind, [None if place is None else column.values[place] for place in places]) for name, column in known.items()
    }


def _truth(decoder: Decoder, targets: Array) -> Columns:
    if not decoder.task.has_classes:
        return _numbers("truth", targets.reshape(len(targets), -1).tolist(), decoder.outputs)
    return {"truth": Column("text", [target_name(decoder.names, target) for target in targets])}


def target_name(names: Sequence[str], target: Any) -> str:
    """Return the name of a class, or the names of all labels of a row of 0 and 1, without those that are missing."""
    return names[int(target)] if np.ndim(target) == 0 else "|".join(names[int(k)] for k in np.flatnonzero(np.asarray(target) > USUAL))


def _predictions(decoder: Decoder, logits: Array, good: Sequence[int], count: int) -> Columns:
    found: list[Any] = [None] * count
    for place, label in zip(good, decoder.decode(logits[good]) if good else [], strict=True):
        found[place] = label
    if not decoder.task.has_classes:
        return _numbers("prediction", [None if label is None else np.atleast_1d(label).tolist() for label in found], decoder.outputs)
    columns = {"prediction": Column("text", [None if label is None else label_text(label) for label in found])}
    if decoder.has_probabilities:
        shares = np.full((count, len(decoder.labels)), np.nan, dtype=np.float32)
        if good:
            shares[good] = decoder.probabilities(logits[good])
        columns |= _shares(decoder, shares)
    return columns


def _trust(decoder: Decoder, outputs: Array, good: Sequence[int], count: int) -> Columns:
    """Return the columns of prediction sets and of scores of outliers, where they are wanted."""
    columns: Columns = {}
    found: list[Any] = [None] * count
    if decoder.sets is not None:
        for place, labels in zip(good, decoder.set_labels(outputs[good]) if good else [], strict=True):
            found[place] = labels
        if decoder.task.has_classes:
            columns["set"] = Column("text", [None if labels is None else label_text(list(labels)) for labels in found])
        else:
            for place, name in enumerate(("low", "high")):
                ends = [None if pair is None else np.atleast_2d(pair)[:, place].tolist() for pair in found]
                columns |= _numbers(name, ends, decoder.outputs)
    if decoder.ood:
        scores = np.full(count, np.nan)
        scores[good] = decoder.ood_scores(outputs[good])
        columns["ood"] = Column("number", [None if np.isnan(score) else float(score) for score in scores])
    return columns


def label_text(label: Any) -> str:
    """Return a prediction as text; several labels separated as ``open_data`` reads them."""
    return "|".join(map(str, label)) if isinstance(label, list | tuple) else str(label)


def _numbers(name: str, rows: Sequence[Sequence[float] | None], width: int) -> Columns:
    names = [name] if width == 1 else [f"{name}_{number + 1}" for number in range(width)]
    return {one: Column("number", [None if row is None else float(row[k]) for row in rows]) for k, one in enumerate(names)}


def _shares(decoder: Decoder, shares: Array) -> Columns:
    return {f"probability_{name}": Column("share", shares[:, k]) for k, name in enumerate(decoder.names)}


def _word_columns(decoder: Decoder, table: Table, rows: Sequence[int], logits: Array, errors: Mapping[int, str]) -> Columns:
    """Return a row per word; a sentence that could not be read has one row, without a word."""
    sentences = {row: [None] if row in errors else _words_of(table.inputs[row]) for row in rows}
    good = [place for place, row in enumerate(rows) if row not in errors]

    def each(values: Iterable[Sequence[Any]]) -> list[Any]:
        """Return one value per word, None for a sentence that could not be read."""
        found = iter(values)
        return [value for row in rows for value in ([None] if row in errors else next(found))]

    columns = {
        "row": Column("whole", [row for row, words in sentences.items() for _ in words]),
        "word": Column("text", [word for words in sentences.values() for word in words]),
    }
    if table.groups is not None:
        columns["group"] = Column("text", [table.groups[row] for row, words in sentences.items() for _ in words])
    if table.targets is not None:
        columns["truth"] = Column("text", each([decoder.names[k] for k in table.targets[row]] for row in rows if row not in errors))
    columns["prediction"] = Column("text", each([str(label) for label in words] for words in decoder.decode(logits[good])))
    nothing = np.full((1, len(decoder.labels)), np.nan, dtype=np.float32)
    known = iter(decoder.probabilities(logits[good]))
    shares = np.concatenate([nothing if row in errors else next(known) for row in rows])
    return (
        columns | _shares(decoder, shares) | {"error": Column("text", [errors.get(row) for row, words in sentences.items() for _ in words])}
    )


def _words_of(sentence: Any) -> list[Any]:
    return sentence.split() if isinstance(sentence, str) else list(sentence)
