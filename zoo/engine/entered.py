"""Training from the middle of a backbone: batches of what entered the first group that trains, kept from one pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.adapter import TaskModel
from zoo.data.dataset import Inputs
from zoo.data.text import TextSamples
from zoo.engine.loader import Loader
from zoo.engine.ranks import Ranks
from zoo.engine.sampler import Batch, ordered_batches
from zoo.engine.store import Store, needed
from zoo.tuning.boundary import Boundary, open_boundary


@dataclasses.dataclass(frozen=True)
class Entering:
    """One batch that enters in the middle: its inputs, of which pixels are not decoded again, and what was kept."""

    x: Inputs
    kept: list[Tensor]


@dataclasses.dataclass(frozen=True)
class Whole:
    """The boundary behind the last group: what is kept are the features."""

    model: TaskModel

    def capture(self, x: Inputs) -> list[Tensor]:
        """Return the features."""
        with torch.no_grad():
            return [self.model.backbone(x)]

    def replay(self, _x: Inputs, stored: list[Tensor]) -> Tensor:
        """Return what was kept."""
        return stored[0]


def find_boundary(model: TaskModel, frozen: int, loader: Loader) -> Boundary | Whole | str:
    """Return the way into a model behind its frozen prefix, tried on the first samples, or why there is none.

    The model is left in eval mode.
    """
    model.eval()
    if frozen == len(model.groups):
        return Whole(model)
    if len(loader.samples) < 2:
        return "there is one sample only"
    inputs, _, _ = next(iter(loader.batches([list(range(min(4, len(loader.samples))))])))
    return open_boundary(model.groups, frozen, inputs)


class Kept:
    """What entered the boundary for every sample of a table and every view; in place of a loader.

    Attributes:
        samples: Those of the loader that it was filled from.
    """

    def __init__(self, boundary: Boundary | Whole, loader: Loader, device: torch.device) -> None:
        self.samples = loader.samples
        self._boundary, self._loader, self._device = boundary, loader, device
        self._views: list[list[Store]] = []

    def fill(self, loader: Loader, view: int, *, batch_size: int, limit: int, folder: Path, ranks: Ranks) -> Iterator[int]:
        """Run the frozen prefix over one view of every sample; yields how many are done after each batch.

        Raises:
            OSError: If it needs more than ``limit`` bytes, or there is no room on the disk.
        """
        stores: list[Store] = []
        done = 0
        order = ordered_batches(len(self.samples), batch_size, self.samples.lengths)
        shared = ranks.count > 1 and len(order) >= ranks.count
        for x, _, indices in loader.batches(order[ranks.rank :: ranks.count] if shared else order, view):
            kept = self._boundary.capture(x)
            stores = stores or self._stores(kept, x, limit, folder)
            for store, values in zip(stores, kept, strict=True):
                store.put(indices, values)
            done += len(indices)
            yield done
        for store in stores if shared else ():
            store.share(ranks)
        self._views.append(stores)

    def _stores(self, kept: list[Tensor], x: Inputs, limit: int, folder: Path) -> list[Store]:
        ragged = [isinstance(x, dict) and values.ndim > 2 and values.shape[1] == x["input_ids"].shape[1] for values in kept]
        ones = np.ones(len(self.samples), dtype=np.int64)
        rows = [self.samples.lengths if each and self.samples.lengths is not None else ones for each in ragged]
        shapes = [values.shape[2:] if each else values.shape[1:] for values, each in zip(kept, ragged, strict=True)]
        size = sum(needed(count, shape, values.dtype) for count, shape, values in zip(rows, shapes, kept, strict=True))
        if size > limit:
            raise OSError(f"it takes {size / 2**30:.1f} GiB and cache_gb allows {limit / 2**30:g}")
        parts = zip(rows, shapes, kept, ragged, strict=True)
        return [Store(count, shape, values.dtype, ragged=each, folder=folder) for count, shape, values, each in parts]

    def batches(self, order: Sequence[Batch], epoch: int = 0) -> Iterable[tuple[Any, Tensor, list[int]]]:
        """Yield batches as a loader does; epoch e takes view e modulo their number."""
        stores = self._views[epoch % len(self._views)]
        for x, targets, indices in self._plain(order, epoch):
            yield Entering(x, [store.get(indices).to(self._device) for store in stores]), targets, indices

    def _plain(self, order: Sequence[Batch], epoch: int) -> Iterable[tuple[Inputs, Tensor, list[int]]]:
        if isinstance(self.samples, TextSamples):  # encoded already, and their masks are needed
            yield from self._loader.batches(order, epoch)
            return
        targets = torch.from_numpy(np.asarray(self.samples.table.targets))
        shape = self._loader.shape
        for indices in order:
            yield torch.zeros((len(indices), *shape), device=self._device), targets[torch.tensor(indices)].to(self._device), indices
