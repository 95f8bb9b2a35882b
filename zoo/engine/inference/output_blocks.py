"""Outputs of a model for the rows of a table, block after block, so that memory does not grow with the number of rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch

from zoo.data.dataset import Batch
from zoo.data.table import Table, names_of
from zoo.data.text import fit_lengths
from zoo.declare import Inputs, Text
from zoo.engine.inference.batched_inference import Outputs, in_batches_that_fit, run_all, run_words
from zoo.engine.inference.window_pooling import pool_windows
from zoo.engine.loading.loader import Loader, default_workers
from zoo.engine.loading.samples import samples_for
from zoo.engine.loading.sources import as_trained, channels_of, refuse_window, resized, with_overflow
from zoo.engine.loading.start_method import usable_workers
from zoo.engine.loading.stream import BatchSource, Function
from zoo.engine.runtime.device import choose_device, choose_precision, placed
from zoo.engine.runtime.progress import Progress
from zoo.errors import DataError, OptionError, checked_fields, count, did_you_mean, examples
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task

log = logging.getLogger("zoo")

BATCH_SIZE = 64
ROWS = 1024  # least rows of a block
ON_ERROR = ("stop", "skip")


@checked_fields
@dataclass(frozen=True)
class InferenceOptions:
    """Options of a pass over data.

    Attributes:
        window: Centre and width through which scans are shown, where it differs from the model's.
        overflow: What becomes of texts that are too long, where it differs from the model's: ``truncate``, ``error`` or ``windows``.
        image_size: Height and width in pixels, where they differ from the model's; one number means a square.
        batch_size: Samples per forward.
        workers: Loader processes; None chooses.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto`` (bf16 on GPUs that have it), ``fp32`` or ``bf16``.
        on_error: At an input that cannot be read, ``stop`` with an error, or ``skip`` it.
        quiet: Show no progress.
    """

    window: tuple[float, float] | None = None
    overflow: str | None = None
    image_size: int | tuple[int, int] | None = None
    batch_size: int = BATCH_SIZE
    workers: int | None = None
    device: str = "auto"
    precision: str = "auto"
    on_error: str = "stop"
    quiet: bool = True

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise OptionError(f"batch_size is {self.batch_size}; it must be at least 1")
        if self.on_error not in ON_ERROR:
            raise OptionError(f"on_error is {self.on_error!r}{did_you_mean(str(self.on_error), ON_ERROR)}; it can be: stop, skip")

    @property
    def skip(self) -> bool:
        """Whether inputs that cannot be read are skipped."""
        return self.on_error == "skip"


class Block(NamedTuple):
    """Outputs of consecutive rows.

    Attributes:
        rows: Their numbers in the table.
        outputs: ``(rows, …)``, NaN for a row that could not be read, ``(rows, 0)`` if none could; for words an array of arrays.
        errors: Why a row could not be read, by its number.
    """

    rows: range
    outputs: Outputs
    errors: Mapping[int, str]


def blocks_of(rows: int, batch_size: int) -> list[range]:
    """Cut rows into blocks of whole batches, of at least ``ROWS`` rows each but the last."""
    size = -(-ROWS // batch_size) * batch_size
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
) -> None:
    """Run a function of a model over a table without gradients.

    Args:
        model: The model; its device, mode and layout are restored.
        table: The rows.
        forward: From a batch of inputs to a batch of outputs.
        options: The options of the pass.
        each: Called with every block, in order.
        blocks: The blocks, as ``blocks_of`` gives them; None for all.
        poll: Called after every batch; may raise to stop.

    Raises:
        OptionError: If a window is given for inputs that have none.
        DataError: If the table is empty.
        CorruptInputError: If an input cannot be read, unless it is skipped.
    """
    inputs = _inputs_in_use(model, table, options)
    table = as_trained(model, table)
    where = choose_device(options.device)
    half = choose_precision(options.precision, where) == "bf16"
    autocast = torch.autocast(where.type, dtype=torch.bfloat16, enabled=half)
    left = list(blocks_of(len(table), options.batch_size) if blocks is None else blocks)
    task, of_model = find_task(model.task), forward is model
    whole, words = sum(map(len, left)), task.per_token and of_model
    pool = task.pool if of_model else lambda parts: parts.mean(0)  # of the windows of a text
    with placed(model, where) as layout, Progress(options.quiet, "") as progress, autocast:
        model.eval()
        number = usable_workers(options.workers, default_workers(where), {table.source: table.inputs})
        loader = _BlockLoader(inputs, table, where, layout=layout, workers=number, skip=options.skip)
        progress.begin("evaluate", whole)

        def run(size: int) -> None:
            for source, rows in loader.sources(list(left), size):
                before, block = whole - sum(map(len, left)), left[0]

                def done(number: int, before: int = before, most: int = len(block)) -> None:
                    progress.step(before + min(number, most))  # a text may be several windows
                    poll()

                outputs = (run_words if words else run_all)(forward, source, len(rows or block), size, each=done)
                outputs = outputs if rows is None else pool_windows(outputs, rows, pool)
                each(_block(block, outputs, loader.taken_errors()))
                del left[0]

        in_batches_that_fit(run, options.batch_size, halved=lambda: None)


def _inputs_in_use(model: TaskModel, table: Table, options: InferenceOptions) -> Inputs:
    if not len(table):
        raise DataError(f"{table.source} is empty")
    inputs = model.inputs
    if options.image_size is not None:
        inputs = resized(model, inputs, options.image_size)
    if options.overflow is not None:
        inputs = with_overflow(inputs, options.overflow, model.spec.modality)
    if options.window is None:
        return inputs
    if isinstance(inputs, Text):
        raise OptionError("window is for scans; the model reads texts")
    refuse_window(options.window, table, channels_of(model))
    return replace(inputs, window=options.window)


def _block(rows: range, outputs: Outputs, errors: Mapping[int, str]) -> Block:
    if errors and outputs.size:
        outputs[[row - rows.start for row in errors]] = np.nan
    return Block(rows, outputs, errors)


class _BlockLoader:
    """Loads one block of rows after another: images and volumes ahead across blocks, texts encoded block by block."""

    def __init__(
        self, inputs: Inputs, table: Table, device: torch.device, *, layout: torch.memory_format, workers: int, skip: bool
    ) -> None:
        self._inputs, self._table, self._device = inputs, table, device
        self._errors: dict[int, str] = {}
        whole = None if isinstance(inputs, Text) else samples_for(inputs, table, skip=skip)
        self._loader = None if whole is None else Loader(whole, device, workers=workers, layout=layout)

    def sources(self, blocks: Sequence[range], size: int) -> Iterator[tuple[BatchSource, Table | None]]:
        """Yield the batches of each block, of ``size`` samples, and of texts the rows, of which one text may have several."""
        if self._loader is None:
            for block in blocks:
                rows = fit_lengths(self._table.select(block), self._inputs)
                yield Loader(samples_for(self._inputs, rows), self._device, workers=0), rows  # they only pad what is encoded
            return
        order = [range(start, min(start + size, block.stop)) for block in blocks for start in range(block.start, block.stop, size)]
        ahead = iter(self._loader.batches(order))
        for block in blocks:
            yield _Shifted(ahead, block.start, self._loader.samples, self._errors), None

    def taken_errors(self) -> dict[int, str]:
        """Return the errors since the last call, by row."""
        errors = dict(self._errors)
        self._errors.clear()
        return errors


@dataclass(frozen=True)
class _Shifted:
    """The next batches of a pass, with rows counted from the start of their block."""

    ahead: Iterator[Batch]
    start: int
    samples: Any
    errors: dict[int, str]

    def batches(self, order: Sequence[Sequence[int]], epoch: int = 0) -> Iterable[Batch]:
        """Yield the batches of an order, which is that of the pass."""
        for batch in islice(self.ahead, len(order)):
            self.errors.update(batch.failed)
            yield batch._replace(indices=[row - self.start for row in batch.indices])


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


def run_whole(model: TaskModel, table: Table, forward: Function, options: InferenceOptions) -> AllOutputs:
    """Return the outputs for all rows of a table; see ``run_blocks``.

    Raises:
        DataError: If no row can be read.
    """
    found, parts = AllOutputs(table), list[Outputs]()

    def take(block: Block) -> None:
        parts.append(block.outputs)
        found.errors.update(block.errors)

    run_blocks(model, table, forward, options, each=take)
    warn_of_errors(table, found.errors, len(found.errors), "have no result")
    width = max((part.shape[1:] for part in parts), key=np.prod)
    if not all(part.shape[1:] == width for part in parts):  # a block of which nothing could be read
        parts = [part if part.size else np.full((len(part), *width), np.nan, dtype=np.float32) for part in parts]
    found.values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return found


def warn_of_errors(table: Table, errors: Mapping[int, str], number: int, effect: str) -> None:
    """Log how many inputs could not be read, with examples.

    Raises:
        DataError: If none could.
    """
    if not number:
        return
    shown = examples([f"{names_of(table.inputs, [row])[0]!r} ({reason})" for row, reason in list(errors.items())[:2]])
    if number == len(table):
        raise DataError(f"{table.source}: none of its {count(number, 'input')} can be read: {shown}")
    log.warning("%s: %s of %d cannot be read and %s: %s", table.source, count(number, "input"), len(table), effect, shown)
