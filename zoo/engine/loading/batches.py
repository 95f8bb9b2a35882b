"""The batches of each optimizer step: samples of each source, their share on this rank, and mixup."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zoo.data.dataset import Batch
from zoo.data.images.augment import Augment, mix_batch
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.loading.order import (
    Indices,
    balancing_weights,
    batches_by_length,
    batches_in_turn,
    cycled,
    epoch_order,
    even_batches,
    task_weights,
)
from zoo.engine.loading.stream import Source, Stream
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import Epoch


class StepBatches:
    """The batches of one run.

    The first source defines the epoch. The others cycle, with ``ratio`` times as many samples per batch as the first; their order is
    a function of the seed and the position in the run.

    Args:
        sources: What the objective trains on.
        config: The configuration.
        ranks: The processes that share each batch.
        soften: Returns targets that mixup and CutMix can mix.
        by_length: Whether texts of nearly equal length share batches.

    Attributes:
        steps: Optimizer steps in which every sample of the first source is taken once.
        smallest: Samples of the smallest batch.
    """

    def __init__(
        self, sources: Mapping[str, Source], config: Config, ranks: Ranks, soften: Callable[[Tensor], Tensor], *, by_length: bool = True
    ) -> None:
        self._by_length, self._sources, self._config, self._ranks, self._soften = by_length, sources, config, ranks, soften
        self._first, *self._others = sources
        table = sources[self._first].table
        self._count = len(table)
        self._draw = balancing_weights(np.asarray(table.targets)) if config.balanced_sampling and table.classes else None
        known = [part.known(np.asarray(table.targets)) for part in table.parts]
        if known and sources[self._first].temperature != 1:
            self._draw = task_weights(known, self._count, sources[self._first].temperature)
        self._turns = known if sources[self._first].in_turn else []
        self._augment = Augment(**(config.augment or {}))
        batches = even_batches(np.arange(self._count), config.samples)
        self.steps = -(-len(batches) // config.accumulate)
        self.smallest = min(map(len, batches), default=0)  # batches of tasks in turn are all as small

    def order(self, epoch: int, lengths: npt.NDArray[np.int64] | None = None) -> list[list[Indices]]:
        """Return the samples of each step of an epoch, as the batches that are accumulated: a function of the seed and the epoch."""
        seed, size = self._config.seed, self._config.accumulate
        order = epoch_order(self._count, seed, epoch, self._draw)
        if self._turns:
            batches = batches_in_turn(self._turns, self._count, self._config.samples, seed, epoch, lengths)
        elif lengths is None or not self._by_length:
            batches = even_batches(order, self._config.samples)
        else:
            batches = batches_by_length(order, self._config.samples, lengths, seed, epoch)
        return [batches[start : start + size] for start in range(0, len(batches), size)]

    def load(
        self, epoch: Epoch, position: int, streams: Mapping[str, Stream], order: Sequence[Sequence[Indices]], first: int = 0
    ) -> Iterator[list[dict[str, Batch]]]:
        """Yield this rank's batches of each step, by source; fewer where a batch has fewer samples than there are ranks.

        Args:
            epoch: The epoch.
            position: Its position in the run.
            streams: The batches of each source.
            order: The samples of each step, of the first source.
            first: Step to begin at.
        """
        shares = {self._first: [[part for batch in step if (part := self._ranks.part(batch))] for step in order[first:]]}
        for source in self._others:
            shares[source] = self._cycled(source, position, order, first)
        loads = {
            source: iter(streams[source].batches([part for step in share for part in step], position)) for source, share in shares.items()
        }
        mixed = epoch.augment and not epoch.cached and bool(self._augment.mixup or self._augment.cutmix)
        for step, share in enumerate(shares[self._first], first):
            loaded = [{source: next(batches) for source, batches in loads.items()} for _ in share]
            yield [self._mixed(batch, position, step, part) for part, batch in enumerate(loaded)] if mixed else loaded

    def _cycled(self, source: str, position: int, order: Sequence[Sequence[Indices]], first: int) -> list[list[Indices]]:
        """Return this rank's part of the batches of a source that cycles."""
        number, count, ratio = self._others.index(source), len(self._sources[source].table), self._sources[source].ratio
        done = ratio * (position * self._count + sum(len(batch) for step in order[:first] for batch in step))
        shares = []
        for step in order[first:]:
            parts = []
            for batch in step:
                found = cycled(count, self._config.seed, number, done, ratio * len(batch))
                parts += [self._ranks.part(found)] if self._ranks.part(batch) else []
                done += len(found)
            shares.append(parts)
        return shares

    def _mixed(self, batches: dict[str, Batch], position: int, step: int, part: int) -> dict[str, Batch]:
        batch = batches[self._first]
        assert isinstance(batch.x, Tensor), "only pixels are mixed"
        other = f"/{self._ranks.rank}" if self._ranks.rank else ""
        rng = random.Random(f"{self._config.seed}/{position}/{step}/{part}/mix{other}")
        x, y = mix_batch(batch.x, self._soften(batch.y), self._augment, rng)
        return batches | {self._first: batch._replace(x=x, y=y)}
