"""Batches of one block of rows after another: images and volumes ahead across blocks, texts encoded block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import torch

from zoo.data.dataset import Batch
from zoo.data.table import Table
from zoo.data.texts.encode import RefusedTextsError
from zoo.data.texts.overflow import Overflow
from zoo.data.texts.token_ids import TextSamples, fit_lengths
from zoo.data.unreadable_input import unreadable
from zoo.declare import Text
from zoo.engine.loading.loader import Loader
from zoo.engine.loading.samples import samples_for
from zoo.engine.loading.stream import BatchSource


@dataclass
class BlockSource:
    """The batches of one block.

    Attributes:
        source: Gives the batches; None if no row of the block can be read.
        errors: Why a row cannot be read, by its number; of images complete when all batches were taken.
        kept: Of texts the places in the block of those that can be read; None for all.
        rows: Of texts the rows that are encoded, several for a text in windows.
        overflow: Of texts how many were too long.
    """

    source: BatchSource | None
    errors: dict[int, str]
    kept: Sequence[int] | None = None
    rows: Table | None = None
    overflow: Overflow = field(default_factory=Overflow)


class BlockSources(Protocol):
    """Gives the batches of blocks of rows."""

    def of(self, blocks: Sequence[range], size: int) -> Iterator[BlockSource]:
        """Yield the batches of each block, of ``size`` samples."""


class PixelBlocks:
    """Images and volumes, loaded ahead across blocks.

    Args:
        inputs: The declared input.
        table: The rows.
        device: Device of the batches.
        layout: Memory format of the inputs on the device.
        workers: Loader processes.
        skip: Leave out inputs that cannot be read.
    """

    def __init__(self, inputs: Any, table: Table, device: torch.device, *, layout: torch.memory_format, workers: int, skip: bool) -> None:
        self._loader = Loader(samples_for(inputs, table, skip=skip), device, workers=workers, layout=layout)

    def of(self, blocks: Sequence[range], size: int) -> Iterator[BlockSource]:
        """Yield the batches of each block, of ``size`` samples."""
        order = [range(start, min(start + size, block.stop)) for block in blocks for start in range(block.start, block.stop, size)]
        ahead = iter(self._loader.batches(order))
        for block in blocks:
            errors: dict[int, str] = {}
            yield BlockSource(_Shifted(ahead, block.start, self._loader.samples, errors), errors)


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


class TextBlocks:
    """Texts, encoded block by block.

    Args:
        inputs: The declared input.
        table: The rows, with prompts.
        given: The rows without prompts, for messages.
        device: Device of the batches.
        skip: Leave out texts that cannot be read.
    """

    def __init__(self, inputs: Text, table: Table, given: Table, device: torch.device, *, skip: bool) -> None:
        self._inputs, self._table, self._given, self._device, self._skip = inputs, table, given, device, skip

    def of(self, blocks: Sequence[range], size: int) -> Iterator[BlockSource]:
        """Yield the batches of each block; their size is up to the order that is asked of them."""
        return map(self._encoded, blocks)

    def _encoded(self, block: range) -> BlockSource:
        """Encode the texts of a block, without those that cannot be read.

        Raises:
            RefusedTextsError: If texts are refused, unless they are skipped.
        """
        chosen = self._table.select(block)
        errors = unreadable(chosen.inputs)
        while kept := [place for place in range(len(block)) if place not in errors]:
            try:
                rows = fit_lengths(chosen.select(kept), self._inputs, quiet=True)
                samples = TextSamples(rows, self._inputs, quiet=True)
            except RefusedTextsError as error:
                if not self._skip:
                    raise error.within(self._given, [block[place] for place in kept], block.stop) from error
                errors |= {kept[place]: reason for place, reason in error.reasons.items()}
            else:  # the loader only pads what is encoded
                loader = Loader(samples, self._device, workers=0)
                return BlockSource(loader, _by_row(errors, block), kept, rows, samples.overflow)
        return BlockSource(None, _by_row(errors, block), [])


def _by_row(errors: dict[int, str], block: range) -> dict[int, str]:
    return {block[place]: reason for place, reason in sorted(errors.items())}
