"""Pooled features of the images or the texts of a table, and the warning of texts that are longer than a model reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.data.table import Table
from zoo.data.texts.encode import encode_table
from zoo.data.texts.overflow import cut_of, long_texts
from zoo.data.texts.tokenizers import open_tokenizer
from zoo.declare import Text
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.inference.output_blocks import Block, run_blocks
from zoo.engine.inference.predict import embed_table
from zoo.models.task_model import TaskModel

Array = npt.NDArray[Any]

log = logging.getLogger("zoo")

NO_WINDOWS = "a trained fusion reads no windows; a solved one does: how='concatenate' with overflow='windows'"
AS_SOLVED = "the head was solved on texts cut like that; fuse() with overflow='windows' reads them whole"
AS_TRAINED = "as the longest text of the training has so many; train on texts as long as these"


def pooled(model: TaskModel, table: Table, options: Mapping[str, Any], *, remedy: str = "") -> Array:
    """Return the pooled features ``(rows, dim)`` of a table; texts that are cut are warned of once.

    Args:
        model: The model.
        table: Images or texts.
        options: Of the pass, as for ``TaskModel.embed``.
        remedy: What the warning proposes; empty to read them in windows.
    """
    if not remedy or "overflow" in options or not isinstance(model.inputs, Text):
        return embed_table(model, table, **options)
    blocks: list[Block] = []
    long = run_blocks(model, table, model.embed_batch, InferenceOptions(**options), each=blocks.append)
    if told := long.truncation(table.source, model.inputs.max_length, remedy=remedy):
        log.warning("%s", told)
    return np.concatenate([block.outputs for block in blocks])


def warn_of_cut_texts(model: TaskModel, table: Table, tokens: int) -> None:
    """Warn of texts that have more tokens than a trained fusion reads.

    Args:
        model: The model of the texts.
        table: The texts.
        tokens: Tokens of a text that the fusion reads, at most those of the model.
    """
    assert isinstance(model.inputs, Text), "fuse() has checked it"
    tokenizer = open_tokenizer(model.inputs)
    encoded = encode_table(tokenizer, table, tokens)
    remedy = AS_TRAINED if tokens < model.inputs.max_length else NO_WINDOWS
    if told := cut_of(table, encoded, long_texts(tokenizer, table, encoded, tokens)).truncation(table.source, tokens, remedy=remedy):
        log.warning("%s", told)
