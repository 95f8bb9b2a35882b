"""Results of a model as columns of a table: what was read, the truth where it is known, predictions and probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from zoo.data.table import Table, names_of
from zoo.engine.inference.decoding.decoder import Array, Decoder
from zoo.tasks.member import Member
from zoo.tasks.several import SeveralTasks
from zoo.tasks.thresholds import USUAL

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


def result_columns(decoder: Decoder, table: Table, rows: Sequence[int], logits: Array, errors: Mapping[int, str]) -> Columns:
    """Return one row per sample: ``input``, ``group``, ``truth``, ``prediction``, ``probability_CLASS``, ``error``.

    With a number of likeliest classes ``top_1``, ``top_1_probability`` and so on in place of ``probability_CLASS``. With prediction sets
    also ``set``, of a regression ``low`` and ``high``; with scores of outliers ``ood``. For words one row per
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
    if decoder.top is not None:
        columns |= _top(decoder, logits, good, count)
    elif decoder.has_probabilities:
        shares = np.full((count, len(decoder.labels)), np.nan, dtype=np.float32)
        if good:
            shares[good] = decoder.probabilities(logits[good])
        columns |= _shares(decoder, shares)
    return columns


def _top(decoder: Decoder, logits: Array, good: Sequence[int], count: int) -> Columns:
    """Return a column of the name and one of the probability of each of the likeliest classes."""
    names: list[list[str | None]] = [[None] * count for _ in range(decoder.top or 0)]
    shares = np.full((len(names), count), np.nan, dtype=np.float32)
    for place, row in zip(good, decoder.top_labels(logits[good]) if good else [], strict=True):
        for rank, (label, share) in enumerate(row):
            names[rank][place], shares[rank, place] = str(label), share
    columns: Columns = {}
    for rank, column in enumerate(names):
        columns |= {f"top_{rank + 1}": Column("text", column), f"top_{rank + 1}_probability": Column("share", shares[rank])}
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
