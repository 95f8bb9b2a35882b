"""Encoding of labels with a class for each word of a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.data.sources.cells import is_unlabelled
from zoo.data.table import Array
from zoo.data.unreadable_input import Unreadable
from zoo.errors import DataError, count, examples
from zoo.tasks.labels.names import are_indices, check_classes, class_order, name_of, plain, refuse_unknown


def encode_by_word(
    labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
) -> tuple[Array, tuple[str, ...]]:
    """Return an array of int64 arrays, one number per word."""
    wrong = [f"row {row} ({label!r})" for row, label in enumerate(labels) if not isinstance(label, str | list | tuple)]
    if wrong:
        raise DataError(f"{source}: no list of labels, one per word, in {count(len(wrong), 'sentence')}: {examples(wrong)}")
    rows = [label.split() if isinstance(label, str) else [plain(part) for part in label] for label in labels]
    gaps = [f"row {row}" for row, tags in enumerate(rows) if any(is_unlabelled(tag) for tag in tags if not isinstance(tag, str))]
    if gaps:
        raise DataError(
            f"{source}: words have no label in {count(len(gaps), 'sentence')} of {len(rows)}: {examples(gaps)}; label each word"
        )
    masked = [f"row {row}" for row, tags in enumerate(rows) if any(tag in (-100, "-100") for tag in tags)]
    if masked:
        raise DataError(
            f"{source}: labels of -100 in {count(len(masked), 'sentence')} of {len(rows)}: {examples(masked)}; "
            f"that marks parts of words, which "
            "are masked here anyway: give the words before the tokenizer, with a label for each"
        )
    if classes is not None and are_indices([part for row in rows for part in row], tuple(map(str, classes))):
        rows = [[classes[int(part)] for part in row] for row in rows]
    rows = [[name_of(part) for part in row] for row in rows]
    read = {row: item for row, item in enumerate(inputs[row] for row in range(len(rows))) if not isinstance(item, Unreadable)}
    words = {row: len(item.split() if isinstance(item, str) else item) for row, item in read.items()}
    odd = [f"row {row} ({number} words, {len(rows[row])} labels)" for row, number in words.items() if len(rows[row]) != number]
    if odd:
        raise DataError(f"{source}: each word needs one label, unlike those of {count(len(odd), 'sentence')}: {examples(odd)}")
    known = check_classes(classes) if classes is not None else class_order({tag for tags in rows for tag in tags})
    place = {name: index for index, name in enumerate(known)}
    refuse_unknown(rows, place, inputs, source)
    targets = np.empty(len(rows), dtype=object)
    targets[:] = [np.array([place[tag] for tag in tags], dtype=np.int64) for tags in rows]
    return targets, known
