"""The words of a table of sentences as samples of their own, with the features that the loss of a head for tokens reads."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from zoo.data.splits.duplicates import equal_numbers, equal_rows
from zoo.data.splits.folds import with_equal_in_groups
from zoo.data.table import Table
from zoo.data.texts.encode import TextWindow
from zoo.data.texts.token_ids import TextSamples
from zoo.engine.inference.batched_inference import Outputs
from zoo.errors import TrainingError


def word_features(outputs: Outputs, samples: TextSamples) -> Tensor:
    """Return the features ``(words, dim)`` of all words of a table that the loss counts, in the order of ``word_table``.

    Args:
        outputs: Features of all words of each sentence, see ``run_words``.
        samples: The sentences.

    Raises:
        TrainingError: If there is no such word.
    """
    words = [samples.words(index) for index in range(len(samples))]
    total = sum(map(len, words))
    if not total:
        source, number = samples.table.source, len(samples.table)
        raise TrainingError(
            f"{source}: none of the {number} sentences has a word that is read, so no head can be fitted; "
            "look at the tokenizer, and at max_length"
        )
    place, found = 0, torch.empty(total, next(len(rows[0]) for rows in outputs if len(rows)))
    for rows, read in zip(outputs, words, strict=True):
        found[place : place + len(read)] = torch.from_numpy(np.asarray(rows, dtype=np.float32)[read])
        place += len(read)
    return found


def word_table(samples: TextSamples) -> Table:
    """Return a table with a row per word that the loss counts; the words of a sentence, its copies and its group are one group.

    A sentence read in overlapping windows has the words of each of them, as in the loss.
    """
    table = samples.table
    assert table.targets is not None, "the words have labels"
    sentences = with_equal_in_groups(table, equal_numbers(len(table), equal_rows(table)))
    names, targets, groups = list[str](), list[int](), list[str]()
    for index in range(len(table)):
        words = samples.words(index)
        one = table.inputs[index]
        sentence = one.text if isinstance(one, TextWindow) else index
        names += [f"word {word + (one.first if isinstance(one, TextWindow) else 0)} of row {sentence}" for word in words]
        targets += [int(table.targets[index][word]) for word in words]
        groups += [str(sentence) if sentences.groups is None else sentences.groups[index]] * len(words)
    return dataclasses.replace(table, inputs=names, targets=np.array(targets, dtype=np.int64), groups=tuple(groups), splits=None)
