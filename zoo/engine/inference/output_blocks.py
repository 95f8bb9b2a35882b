"""Outputs of a model for the rows of a table, block after block, so that memory does not grow with the number of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from zoo.data.table import Table
from zoo.data.texts.overflow import Overflow
from zoo.declare import Text
from zoo.engine.inference.batched_inference import Outputs, in_batches_that_fit, run_all, run_words
from zoo.engine.inference.block_sources import BlockSource, BlockSources, PixelBlocks, TextBlocks
from zoo.engine.inference.inference_options import InferenceOptions, inputs_in_use, prompted
from zoo.engine.inference.window_pooling import pool_windows
from zoo.engine.loading.loader import default_workers
from zoo.engine.loading.sources import as_trained
from zoo.engine.loading.start_method import usable_workers
from zoo.engine.loading.stream import Function
from zoo.engine.runtime.device import choose_device, choose_precision, placed
from zoo.engine.runtime.input_sizes import explained_size
from zoo.engine.runtime.progress import Progress
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task

ROWS = 1024  # least rows of a block


class Block(NamedTuple):
    """Outputs of consecutive rows.

    Attributes:
        rows: Their numbers in the table.
        outputs: ``(rows, …)``, NaN for a row that could not be read, ``(rows, 0)`` if none could; for words an array of arrays, of
            which that of such a row is ``(0, classes)``.
        errors: Why a row could not be read, by its number.
    """

    rows: range
    outputs: Outputs
    errors: Mapping[int, str]


def blocks_of(rows: int, batch_size: int, least: int = 1) -> list[range]:
    """Cut rows into blocks of whole batches.

    Args:
        rows: Number of rows.
        batch_size: Rows of a batch.
        least: Blocks that are wanted at least; with fewer blocks of ``ROWS`` rows than that they are smaller, if there are batches enough.
    """
    size = ROWS if -(-rows // ROWS) >= least else -(-rows // least)
    size = -(-size // batch_size) * batch_size
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def run_blocks(
    model: TaskModel,
    table: Table,
    forward: Function,
    options: InferenceOptions,
    *,
    each: Callable[[Block], None],
    blocks: Sequence[range] | None = None,
    poll: Callable[[], None] = lambda: None,
) -> Overflow:
    """Run a function of a model over a table without gradients.

    Args:
        model: The model; its device, mode and layout are restored.
        table: The rows.
        forward: From a batch of inputs to a batch of outputs.
        options: The options of the pass.
        each: Called with every block, in order.
        blocks: The blocks, as ``blocks_of`` gives them; None for all.
        poll: Called after every batch; may raise to stop.

    Returns:
        How many texts were too long.

    Raises:
        OptionError: If an option is not for such inputs.
        DataError: If the table is empty.
        CorruptInputError: If an image or a volume cannot be read, unless it is skipped.
        RefusedTextsError: If texts cannot be encoded, unless they are skipped.
    """
    where = choose_device(options.device)
    half = choose_precision(options.precision, where) == "bf16"
    autocast = torch.autocast(where.type, dtype=torch.bfloat16, enabled=half)
    left = list(blocks_of(len(table), options.batch_size) if blocks is None else blocks)
    whole, long = sum(map(len, left)), Overflow()
    with placed(model, where) as layout, Progress(options.quiet, "") as progress, autocast:
        model.eval()
        compute, sources = _computing(model, forward), _sources(model, table, options, where, layout)
        progress.begin("evaluate", whole)

        def run(size: int) -> None:
            nonlocal long
            for source in sources.of(list(left), size):
                before, block = whole - sum(map(len, left)), left[0]

                def done(number: int, before: int = before, most: int = len(block)) -> None:
                    progress.step(before + min(number, most))  # a text may be several windows
                    poll()

                each(Block(block, compute(source, block, size, done), dict(source.errors)))
                long += source.overflow
                del left[0]

        with explained_size(model, inputs_in_use(model, table, options)):
            in_batches_that_fit(run, options.batch_size, halved=lambda: None)
    return long


def _sources(model: TaskModel, table: Table, options: InferenceOptions, where: torch.device, layout: torch.memory_format) -> BlockSources:
    inputs = inputs_in_use(model, table, options)
    given, table = table, prompted(model, as_trained(model, table), options.prompt_name)
    if isinstance(inputs, Text):
        return TextBlocks(inputs, table, given, where, skip=options.skip)
    workers = usable_workers(options.workers, default_workers(where, len(table)), {table.source: table.inputs})
    return PixelBlocks(inputs, table, where, layout=layout, workers=workers, skip=options.skip)


def _computing(model: TaskModel, forward: Function) -> Callable[[BlockSource, range, int, Callable[[int], None]], Outputs]:
    """Return a function that computes the outputs of one block."""
    task, of_model = find_task(model.task), forward is model
    words = task.per_token and of_model
    pool = task.pool if of_model else lambda parts: parts.mean(0)  # of the windows of a text
    if forward == model.outputs_and_features:
        outputs = model.num_classes

        def pool(parts: Outputs) -> Outputs:
            return np.concatenate([task.pool(parts[:, :outputs]), parts[:, outputs:].mean(0)])

    def compute(block: BlockSource, rows: range, size: int, each: Callable[[int], None]) -> Outputs:
        if block.source is None:
            outputs = np.empty(0, dtype=object) if words else np.zeros((0, 0), dtype=np.float32)
        else:
            number = len(rows) if block.rows is None else len(block.rows)
            outputs = (run_words if words else run_all)(forward, block.source, number, size, each=each)
            outputs = outputs if block.rows is None else pool_windows(outputs, block.rows, pool)
        if block.kept is not None:
            return outputs if len(block.kept) == len(rows) else _spread(outputs, block.kept, len(rows), model.num_classes)
        if block.errors and outputs.size:
            outputs[[row - rows.start for row in block.errors]] = np.nan
        return outputs

    return compute


def _spread(outputs: Outputs, places: Sequence[int], size: int, classes: int) -> Outputs:
    """Return outputs in their places among ``size`` rows, of which the others could not be read."""
    if outputs.dtype != object:
        found = np.full((size, *outputs.shape[1:]), np.nan, dtype=np.float32)
    else:
        found = np.empty(size, dtype=object)
        for place in range(size):
            found[place] = np.zeros((0, classes), dtype=np.float32)
    for place, values in zip(places, outputs, strict=True):
        found[place] = values
    return found
