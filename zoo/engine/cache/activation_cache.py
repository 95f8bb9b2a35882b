"""Training from the middle of a backbone: batches of what entered the first group that trains, kept from one pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.data.dataset import Batch, ModelInputs
from zoo.data.table import Table
from zoo.data.text import TextSamples
from zoo.engine.cache.tensor_store import Store, needed
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.loading.loader import Loader, to_device
from zoo.engine.loading.order import Indices, ordered_batches
from zoo.models.task_model import TaskModel
from zoo.tuning.partial_forward import Boundary, open_boundary


@dataclasses.dataclass(frozen=True)
class Entering:
    """One batch that enters in the middle: its inputs, of which pixels are not decoded again, and what was kept."""

    x: ModelInputs
    kept: list[Tensor]


@dataclasses.dataclass(frozen=True)
class Whole:
    """The boundary behind the last group: what is kept are the features."""

    model: TaskModel

    def capture(self, x: ModelInputs) -> list[Tensor]:
        """Return the features."""
        with torch.no_grad():
            return [self.model.backbone(x)]

    def replay(self, _x: ModelInputs, stored: list[Tensor]) -> Tensor:
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
    batch = next(iter(loader.batches([list(range(min(4, len(loader.samples))))])))
    return open_boundary(model.groups, frozen, batch.x)


class ActivationCache:
    """What entered the boundary for every sample of a table and every view; stands in place of a loader.

    Attributes:
        samples: Those of the loader that it was filled from.
    """

    def __init__(self, boundary: Boundary | Whole, loader: Loader, device: torch.device) -> None:
        self.samples = loader.samples
        self._boundary, self._loader, self._device = boundary, loader, device
        self._views: list[list[Store]] = []

    def fill(
        self,
        loader: Loader,
        view: int,
        *,
        batch_size: int,
        held: int,
        limit: int,
        folder: Path,
        ranks: Ranks,
        each: Callable[[int], None],
    ) -> None:
        """Run the frozen prefix over one view of every sample.

        Args:
            loader: Gives the samples.
            view: Which view of them.
            batch_size: Samples per forward.
            held: Bytes that are kept already.
            limit: Bytes that may be kept in all.
            folder: Where large stores go.
            ranks: Processes that share the samples; each of them gets all that is kept.
            each: Called with the number of samples done after every batch; may raise to stop.

        Raises:
            OSError: On all ranks, if it needs more than ``limit`` bytes, or there is no room on a disk.
        """
        stores: list[Store] = []
        done = 0
        order, shared = ranks.share(ordered_batches(len(self.samples), batch_size, self.samples.lengths))
        with ranks.together((OSError,)):
            for batch in loader.batches(order, view):
                kept = self._boundary.capture(batch.x)
                stores = stores or self._stores(kept, batch.x, limit, held, folder)
                for store, values in zip(stores, kept, strict=True):
                    store.put(batch.indices, values)
                done += len(batch.indices)
                each(done)
        for store in stores if shared else ():
            store.share(ranks)
        self._views.append(stores)

    def adopt(self, stores: list[Store] | None) -> bool:
        """Take over one view that was filled before; tell whether there was one."""
        if stores is not None:
            self._views.append(stores)
        return stores is not None

    @property
    def nbytes(self) -> int:
        """Bytes of all views."""
        return sum(store.nbytes for stores in self._views for store in stores)

    @property
    def newest(self) -> tuple[list[Store], int]:
        """The view that was filled last, and its bytes."""
        stores = self._views[-1]
        return stores, sum(store.nbytes for store in stores)

    def _stores(self, kept: list[Tensor], x: ModelInputs, limit: int, held: int, folder: Path) -> list[Store]:
        ragged = [isinstance(x, dict) and values.ndim > 2 and values.shape[1] == x["input_ids"].shape[1] for values in kept]
        ones = np.ones(len(self.samples), dtype=np.int64)
        rows = [self.samples.lengths if each and self.samples.lengths is not None else ones for each in ragged]
        shapes = [values.shape[2:] if each else values.shape[1:] for values, each in zip(kept, ragged, strict=True)]
        size = sum(needed(count, shape, values.dtype) for count, shape, values in zip(rows, shapes, kept, strict=True))
        if held + size > limit:
            raise OSError(too_large(held + size, limit))
        parts = zip(rows, shapes, kept, ragged, strict=True)
        return [
            Store(count, shape, values.dtype, ragged=each, folder=folder, channels_last=_channels_last(values))
            for count, shape, values, each in parts
        ]

    def sizes(self, lengths: npt.NDArray[np.int64]) -> list[int]:
        """Return the bytes of each store that one view of other samples takes, of which these are the lengths."""
        return [store.size(lengths) for store in self._views[0]]

    def batches(self, order: Sequence[Indices], epoch: int = 0) -> Iterable[Batch]:
        """Yield batches as a loader does; epoch e takes view e modulo their number."""
        stores = self._views[epoch % len(self._views)]
        for batch in self._plain(order, epoch):
            yield batch._replace(x=Entering(batch.x, [to_device(store.get(batch.indices), self._device) for store in stores]))

    def _plain(self, order: Sequence[Indices], epoch: int) -> Iterable[Batch]:
        if isinstance(self.samples, TextSamples):  # encoded already, and their masks are needed
            yield from self._loader.batches(order, epoch)
            return
        targets, shape = targets_of(self.samples.table), self._loader.shape
        for indices in order:
            y = to_device(targets[torch.tensor(indices)], self._device)
            yield Batch(torch.zeros((len(indices), *shape), device=self._device), y, indices)


def targets_of(table: Table) -> Tensor:
    """Return the targets of a table; -1 for every sample of one without labels."""
    return torch.from_numpy(np.full(len(table), -1) if table.targets is None else np.asarray(table.targets))


def _channels_last(values: Tensor) -> bool:
    return values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last) and not values.is_contiguous()


def too_large(size: int, limit: int) -> str:
    """Tell why something of ``size`` bytes is not kept."""
    return f"it takes {size / 2**30:.1f} GiB and cache_gb allows {limit / 2**30:g}"
