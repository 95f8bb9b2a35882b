"""Activations at the boundary between frozen and trainable groups, stored from one pass and read as batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.data.dataset import Batch, ModelInputs
from zoo.data.table import Table
from zoo.data.texts.token_ids import TextSamples
from zoo.engine.cache.tensor_store import Store, needed
from zoo.engine.loading.loader import Loader, to_device
from zoo.engine.loading.order import Indices, ordered_batches
from zoo.engine.rundir.run_context import RunContext
from zoo.models.task_model import TaskModel
from zoo.tuning.partial_forward import Boundary, open_boundary


@dataclasses.dataclass(frozen=True)
class CachedInputs:
    """A batch with stored activations.

    Attributes:
        x: The inputs; images are zeros of their shape, as nothing reads them.
        activations: The stored activations, one tensor per argument of the boundary module.
    """

    x: ModelInputs
    activations: list[Tensor]


@dataclasses.dataclass(frozen=True)
class EndBoundary:
    """The boundary after the last group, whose activations are the backbone's features."""

    model: TaskModel

    def capture(self, x: ModelInputs) -> list[Tensor]:
        """Return the features."""
        with torch.no_grad():
            return [self.model.backbone(x)]

    def replay(self, _x: ModelInputs, stored: list[Tensor]) -> Tensor:
        """Return the stored features."""
        return stored[0]


def find_boundary(model: TaskModel, frozen: int, loader: Loader) -> Boundary | EndBoundary | str:
    """Return the boundary behind the frozen prefix, tried on the first samples, or why there is none.

    The model is left in eval mode.
    """
    model.eval()
    if frozen == len(model.groups):
        return EndBoundary(model)
    if len(loader.samples) < 2:
        return "there is one sample only"
    batch = next(iter(loader.batches([list(range(min(4, len(loader.samples))))])))
    return open_boundary(model.groups, frozen, batch.x)


class ActivationCache:
    """Activations of every sample and every view of a table; used in place of a loader.

    Args:
        boundary: Where they enter the model.
        loader: Loads the rest of each batch: targets, and for texts token ids and masks.
        context: The conditions of the run.

    Attributes:
        samples: Those of the loader.
    """

    def __init__(self, boundary: Boundary | EndBoundary, loader: Loader, context: RunContext) -> None:
        self.samples = loader.samples
        self._boundary, self._loader, self._context = boundary, loader, context
        self._views: list[tuple[list[Store], npt.NDArray[np.int64] | None]] = []  # with the rows of the samples in them

    def fill(self, loader: Loader, view: int, *, batch_size: int, stored: int, each: Callable[[int], None]) -> None:
        """Run the frozen prefix over one view of every sample.

        Args:
            loader: Gives the samples.
            view: Number of the view.
            batch_size: Samples per forward.
            stored: Bytes that the run has stored so far; together they may take ``cache_gb``.
            each: Called with the number of samples done after every batch; may raise to stop.

        Raises:
            OSError: On all ranks, if ``cache_gb`` does not allow for it, or there is no room on a disk.
        """
        ranks = self._context.ranks  # each runs a part of the samples and gets the activations of all
        stores: list[Store] = []
        done = 0
        order, shared = ranks.share(ordered_batches(len(self.samples), batch_size, self.samples.lengths))
        with ranks.together((OSError,)):
            for batch in loader.batches(order, view):
                activations = self._boundary.capture(batch.x)
                stores = stores or self._stores(activations, batch.x, stored)
                for store, values in zip(stores, activations, strict=True):
                    store.put(batch.indices, values)
                done += len(batch.indices)
                each(done)
        for store in stores if shared else ():
            store.share(ranks)
        self._views.append((stores, None))

    def adopt(self, stores: list[Store] | None, rows: npt.NDArray[np.int64] | None = None) -> bool:
        """Take over a view that was filled before; return whether there was one.

        Args:
            stores: The view, or None.
            rows: The row of each sample in it; None where it is of these samples.
        """
        if stores is not None:
            self._views.append((stores, rows))
        return stores is not None

    @property
    def nbytes(self) -> int:
        """Bytes of all views."""
        return sum(store.nbytes for stores, _ in self._views for store in stores)

    @property
    def newest(self) -> tuple[list[Store], int]:
        """The view that was filled last, and its bytes."""
        stores = self._views[-1][0]
        return stores, sum(store.nbytes for store in stores)

    def _stores(self, activations: list[Tensor], x: ModelInputs, stored: int) -> list[Store]:
        """Return empty stores for activations of these shapes."""
        limit = int(self._context.config.cache_gb * 2**30)
        ragged = [isinstance(x, dict) and values.ndim > 2 and values.shape[1] == x["input_ids"].shape[1] for values in activations]
        ones = np.ones(len(self.samples), dtype=np.int64)
        rows = [self.samples.lengths if each and self.samples.lengths is not None else ones for each in ragged]
        shapes = [values.shape[2:] if each else values.shape[1:] for values, each in zip(activations, ragged, strict=True)]
        size = sum(needed(count, shape, values.dtype) for count, shape, values in zip(rows, shapes, activations, strict=True))
        if stored + size > limit:
            raise OSError(too_large(stored + size, limit))
        parts = zip(rows, shapes, activations, ragged, strict=True)
        return [
            Store(count, shape, values.dtype, ragged=each, folder=self._context.folder, channels_last=_channels_last(values))
            for count, shape, values, each in parts
        ]

    def sizes(self, lengths: npt.NDArray[np.int64]) -> list[int]:
        """Return the bytes of each store of one view, had it samples of these lengths."""
        return [store.size(lengths) for store in self._views[0][0]]

    def batches(self, order: Sequence[Indices], epoch: int = 0) -> Iterable[Batch]:
        """Yield batches as a loader does; epoch e takes view e modulo their number."""
        stores, rows = self._views[epoch % len(self._views)]
        for batch in self._plain(order, epoch):
            places = batch.indices if rows is None else rows[batch.indices].tolist()
            activations = [to_device(store.get(places), self._context.device) for store in stores]
            yield batch._replace(x=CachedInputs(batch.x, activations))

    def _plain(self, order: Sequence[Indices], epoch: int) -> Iterable[Batch]:
        if isinstance(self.samples, TextSamples):  # the masks are needed, and loading is cheap as texts are encoded already
            yield from self._loader.batches(order, epoch)
            return
        targets, shape = targets_of(self.samples.table), self._loader.shape
        for indices in order:
            y = to_device(targets[torch.tensor(indices)], self._context.device)
            yield Batch(torch.zeros((len(indices), *shape), device=self._context.device), y, indices)


def targets_of(table: Table) -> Tensor:
    """Return the targets of a table; -1 for every sample of one without labels."""
    return torch.from_numpy(np.full(len(table), -1) if table.targets is None else np.asarray(table.targets))


def _channels_last(values: Tensor) -> bool:
    return values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last) and not values.is_contiguous()


def too_large(size: int, limit: int) -> str:
    """Return why something of ``size`` bytes is not stored."""
    return f"it takes {size / 2**30:.1f} GiB and cache_gb allows {limit / 2**30:g}"


def cut(batch: Batch, part: slice) -> Batch:
    """Return some samples of a batch."""
    return Batch(
        cut_inputs(batch.x, part),
        batch.y[part],
        batch.indices[part],
        tuple(cut_inputs(view, part) for view in batch.views),
        batch.frozen and {name: rows[part] for name, rows in batch.frozen.items()},
    )


def cut_inputs(x: Any, part: slice) -> Any:
    """Return the inputs of some samples of a batch."""
    if isinstance(x, CachedInputs):
        return dataclasses.replace(x, x=cut_inputs(x.x, part), activations=[values[part] for values in x.activations])
    return {name: values[part] for name, values in x.items()} if isinstance(x, dict) else x[part]
