"""Which samples each step trains on, and this process's part of them, mixed where they are to be."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional

from zoo.data.open import Table
from zoo.data.transforms import Augment, mix_batch
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.loading.loader import Loaded
from zoo.engine.loading.order import Batch, balancing_weights, batches_by_length, epoch_order, even_batches
from zoo.engine.loading.stream import Stream
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import Epoch
from zoo.models.task_model import TaskModel


class Batches:
    """The batches of one run.

    Args:
        model: The model.
        train: Training data.
        config: The configuration.
        ranks: The processes that share each batch.

    Attributes:
        steps: Optimizer steps in which every sample is taken once.
        smallest: Samples of the smallest batch.
    """

    def __init__(self, model: TaskModel, train: Table, config: Config, ranks: Ranks) -> None:
        self._model, self._count, self._config, self._ranks = model, len(train), config, ranks
        self._draw = balancing_weights(np.asarray(train.targets)) if config.balanced_sampling and train.classes else None
        self._augment = Augment(**(config.augment or {}))
        batches = even_batches(np.arange(len(train)), config.samples)
        self.steps = -(-len(batches) // config.accumulate)
        self.smallest = min(map(len, batches), default=0)

    def order(self, epoch: int, lengths: npt.NDArray[np.int64] | None = None) -> list[list[Batch]]:
        """Return the samples of each step of an epoch, as the batches that are accumulated: a function of the seed and the epoch."""
        seed, size = self._config.seed, self._config.accumulate
        order = epoch_order(self._count, seed, epoch, self._draw)
        if lengths is None:
            batches = even_batches(order, self._config.samples)
        else:
            batches = batches_by_length(order, self._config.samples, lengths, seed, epoch)
        return [batches[start : start + size] for start in range(0, len(batches), size)]

    def load(self, epoch: Epoch, position: int, stream: Stream, order: Sequence[Sequence[Batch]], first: int = 0) -> Iterator[list[Loaded]]:
        """Yield this process's batches of each step from ``first`` on; fewer where a batch has fewer samples than there are processes.

        Args:
            epoch: The epoch of the plan.
            position: Its position in the plan.
            stream: What loads samples.
            order: The samples of each step.
            first: Step to begin at.
        """
        shares = [[part for batch in step if (part := self._ranks.part(batch))] for step in order[first:]]
        batches = iter(stream.batches([part for step in shares for part in step], position))
        mixed = epoch.augment and not epoch.cached and bool(self._augment.mixup or self._augment.cutmix)
        for step, share in enumerate(shares, first):
            loaded = [next(batches) for _ in share]
            yield [self._mixed(batch, position, step, part) for part, batch in enumerate(loaded)] if mixed else loaded

    def _mixed(self, batch: Loaded, position: int, step: int, part: int) -> Loaded:
        x, y, indices = batch
        assert isinstance(x, Tensor), "only pixels are mixed"
        other = f"/{self._ranks.rank}" if self._ranks.rank else ""
        rng = random.Random(f"{self._config.seed}/{position}/{step}/{part}/mix{other}")
        return (*mix_batch(x, self._soft(y), self._augment, rng), indices)

    def _soft(self, targets: Tensor) -> Tensor:
        """Return targets that can be mixed: single labels as one-hot rows."""
        return functional.one_hot(targets, self._model.num_classes).float() if self._model.task == "single-label" else targets
