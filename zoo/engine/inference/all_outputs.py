"""The outputs of a model for all rows of a table in memory, computed by one process or several."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np

from zoo.data.table import Table, names_of
from zoo.data.texts.overflow import Overflow
from zoo.data.unreadable_input import Unreadable
from zoo.declare import Text
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.inference.batched_inference import Outputs
from zoo.engine.inference.inference_options import InferenceOptions, inputs_in_use
from zoo.engine.inference.output_blocks import Block, blocks_of, run_blocks
from zoo.engine.loading.sources import summary
from zoo.engine.loading.stream import Function
from zoo.errors import DataError, count, examples
from zoo.models.task_model import TaskModel

log = logging.getLogger("zoo")

TIMEOUT = 86400.0  # seconds that a process waits at the end for the slowest one; the launcher ends all if one fails


@dataclass
class AllOutputs:
    """The outputs of all rows in memory.

    Attributes:
        table: The rows.
        values: ``(rows, …)``; for words an array of arrays.
        errors: Why a row could not be read, by its number.
    """

    table: Table
    values: Outputs = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    errors: dict[int, str] = field(default_factory=dict)


def run_whole(
    model: TaskModel,
    table: Table,
    forward: Function,
    options: InferenceOptions,
    ranks: Ranks | None = None,
    poll: Callable[[], None] = lambda: None,
) -> AllOutputs:
    """Return the outputs for all rows of a table, of which each rank computes a share; see ``run_blocks``.

    Raises:
        DataError: If no row can be read.
    """
    ranks = ranks or Ranks()
    blocks = blocks_of(len(table), options.batch_size, ranks.count)
    parts, long = list[Block](), Overflow()
    with ranks.together():
        if mine := blocks[ranks.rank :: ranks.count]:
            long = run_blocks(model, table, forward, options, each=parts.append, blocks=mine, poll=poll)
    words = any(part.outputs.dtype == object for part in parts)
    errors = {row: reason for part in parts for row, reason in part.errors.items()}
    found = AllOutputs(table, (_words if max(ranks.gather(words)) else _rows)(table, parts, ranks))
    known = ranks.gather({str(row): reason for row, reason in errors.items()})
    found.errors = dict(sorted((int(row), reason) for some in known for row, reason in some.items()))
    long = sum_of(long, ranks)
    warn_of_errors(table, found.errors, len(found.errors), "no result", quiet=not ranks.main)
    if ranks.main:
        log_overflow(long, model, table, options)
    return found


def _rows(table: Table, parts: list[Block], ranks: Ranks) -> Outputs:
    """Return all outputs as one array; those of a block of which nothing could be read are NaN."""
    widths = ranks.gather(list(max((part.outputs.shape[1:] for part in parts), key=math.prod, default=(0,))))
    shape = max(widths, key=math.prod)
    values = np.zeros((len(table), *shape), dtype=np.float32)
    for part in parts:
        values[part.rows.start : part.rows.stop] = part.outputs if part.outputs.shape[1:] == tuple(shape) else np.nan
    return ranks.fill(values)


def _words(table: Table, parts: list[Block], ranks: Ranks) -> Outputs:
    """Return an array with the outputs ``(words, classes)`` of each sentence; ``(0, classes)`` where it could not be read."""
    found = np.empty(len(table), dtype=object)
    sizes = np.zeros(len(table), dtype=np.int64)
    for part in parts:
        for row, rows in zip(part.rows, part.outputs, strict=True):
            found[row], sizes[row] = rows, len(rows)
    if ranks.count == 1:
        return found
    classes = max(ranks.gather(max((rows.shape[1] for part in parts for rows in part.outputs), default=0)))
    ends = np.cumsum(ranks.fill(sizes))
    flat = np.zeros((int(ends[-1]), classes), dtype=np.float32)
    for part in parts:
        for row, rows in zip(part.rows, part.outputs, strict=True):
            flat[ends[row] - len(rows) : ends[row]] = rows
    flat, start = ranks.fill(flat), 0
    for row, end in enumerate(ends):
        found[row], start = flat[start:end], end
    return found


def sum_of(long: Overflow, ranks: Ranks) -> Overflow:
    """Return how many texts were too long on all ranks."""
    return sum((Overflow(*numbers) for numbers in ranks.gather(list(astuple(long)))), start=Overflow())


def log_overflow(long: Overflow, model: TaskModel, table: Table, options: InferenceOptions) -> None:
    """Log, in one line each, how many texts were cut or read in windows."""
    inputs = inputs_in_use(model, table, options)
    if not isinstance(inputs, Text):
        return
    if told := long.truncation(table.source, inputs.max_length, words=table.reads == "words"):
        log.warning("%s", told)
    if told := long.division(table.source, inputs.max_length):
        log.info("%s", told)


def check_same_inputs(ranks: Ranks, table: Table) -> None:
    """Check that all ranks have opened the same rows.

    Raises:
        DataError: On every rank, with the numbers of rows.
    """
    if ranks.count == 1:
        return
    known: Any = ranks.gather([len(table), (summary(table) or {})["sha256"]])
    if any(one != known[0] for one in known):
        rows = examples([f"{one[0]} on rank {rank}" for rank, one in enumerate(known)], 8)
        why = "has it changed meanwhile, or is it another on each machine?"
        raise ranks.known(DataError(f"{table.source}: the ranks opened different rows ({rows}); {why}"))


def warn_of_errors(table: Table, errors: Mapping[int, str], number: int, effect: str, *, quiet: bool = False) -> None:
    """Log how many inputs could not be read, with examples.

    Args:
        table: The inputs.
        errors: Why some or all of them could not be read, by their rows.
        number: How many could not.
        effect: What they have then, such as ``no result``.
        quiet: Log nothing.

    Raises:
        DataError: If none could.
    """
    if not number:
        return
    named = [f"{_name(table, row)} ({reason})" for row, reason in list(errors.items())[:4]]
    shown = examples(named + [""] * (number - len(named)), len(named))
    if number == len(table):
        raise DataError(f"{table.source}: none of its {count(number, 'input')} can be read: {shown}")
    if not quiet:
        effect = f"{'has' if number == 1 else 'have'} {effect}"
        log.warning("%s: %s of %d cannot be read and %s: %s", table.source, count(number, "input"), len(table), effect, shown)


def _name(table: Table, row: int) -> str:
    """Return the path of an input in quotes, or the number of its row."""
    given = isinstance(table.inputs, list | tuple) and not isinstance(table.inputs[row], Unreadable)
    return repr(names_of(table.inputs, [row])[0]) if given else f"row {row}"
