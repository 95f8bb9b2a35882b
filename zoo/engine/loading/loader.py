"""Data loaders: batches on the device, in an order given for each epoch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.data.dataset import Batch, ModelInputs, Samples
from zoo.data.images.augment import Augment
from zoo.data.images.pixel_store import PixelStore
from zoo.data.table import Table
from zoo.data.texts.token_ids import TextSamples
from zoo.declare import Image, Inputs, Text
from zoo.engine.loading.samples import samples_for
from zoo.engine.loading.start_method import refuse_second_run, start_method, usable_workers
from zoo.engine.loading.stream import View
from zoo.engine.loading.worker_watchdog import Watched, WatchedLoader
from zoo.engine.loading.workers import init_worker
from zoo.engine.options.config import Config
from zoo.engine.runtime.cores import usable_cores


class _Order(Sequence[Sequence[int]]):
    """The batches of the next epoch; replaced between epochs, so that persistent workers can be used."""

    def __init__(self) -> None:
        self.batches: Sequence[Sequence[int]] = []

    def __getitem__(self, index: Any) -> Any:
        return self.batches[index]

    def __len__(self) -> int:
        return len(self.batches)


class Loader:
    """Loads batches of a fixed set of samples.

    Args:
        samples: The samples.
        device: Device of the batches.
        workers: Loader processes; 0 loads in this process, None chooses.
        layout: Memory format of the inputs on the device.
        keep_workers: Whether the processes persist between passes.
    """

    def __init__(
        self,
        samples: Samples | TextSamples,
        device: torch.device,
        *,
        workers: int | None = None,
        layout: torch.memory_format = torch.contiguous_format,
        keep_workers: bool = True,
    ) -> None:
        refuse_second_run()
        self.samples, self._device, self._layout = samples, device, layout
        self._order = _Order()
        number = default_workers(device, _images(samples)) if workers is None else workers
        self._loader = WatchedLoader(
            Watched(samples, number) if number else samples,  # type: ignore[arg-type]  # texts have the methods of a Dataset
            batch_sampler=self._order,  # type: ignore[arg-type]  # a range of indices is not a list, and as good
            num_workers=number,
            collate_fn=samples.collate,
            pin_memory=device.type == "cuda",
            worker_init_fn=init_worker if number else None,
            multiprocessing_context=start_method() if number else None,
            persistent_workers=keep_workers and number > 0,
            # A private generator, because iterators would otherwise draw from the global one.
            generator=torch.Generator(),
        )

    def batches(self, order: Sequence[Sequence[int]], epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an order, on the device."""
        self.samples.set_epoch(epoch)
        self._order.batches = order
        for batch in _quiet_iterator(self._loader):
            yield batch._replace(x=self._placed(batch.x), y=batch.y.to(self._device, non_blocking=True))

    def close(self) -> None:
        """End the workers; the next pass starts others."""
        self._loader.close()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample's tensor."""
        return tuple(self.samples[0][0].shape)  # type: ignore[union-attr]  # called for images only

    def _placed(self, inputs: ModelInputs) -> ModelInputs:
        if isinstance(inputs, Mapping):
            return {name: x.to(self._device, non_blocking=True) for name, x in inputs.items()}
        x = inputs.to(self._device, non_blocking=True)
        return x.contiguous(memory_format=torch.channels_last) if self._layout == torch.channels_last and x.ndim == 4 else x


class Kind(NamedTuple):
    """A way to load samples.

    Attributes:
        table: Name of the table.
        augmented: Whether the samples are augmented.
        view: Number of the view within a step; each has its own loader.
        whole: Whether all rows of the table's origin are loaded, not those of the table alone.
    """

    table: str
    augmented: bool = False
    view: int = 0
    whole: bool = False


class Loaders:
    """The loaders of one run by kind, made on first use.

    Args:
        inputs: The declared input.
        tables: The data by name, with encoded targets.
        config: The resolved configuration.
        device: Where batches go.
        layout: Memory format of the inputs.
        augment: The user's own augmentation, or None.
        beside: Declared inputs by name, as which the same views of the same samples are read too.
        views: Of tables whose augmented views are made in other ways than by ``config``, these.
        pixels: Decoded pixels that other models read too, or None.
        quiet: Do not log how many texts are cut.

    Attributes:
        beside: Their loaders by name.
    """

    def __init__(
        self,
        inputs: Inputs,
        tables: Mapping[str, Table],
        config: Config,
        device: torch.device,
        *,
        layout: torch.memory_format,
        augment: Callable[[Any], Any] | None = None,
        beside: Mapping[str, Inputs] = MappingProxyType({}),
        views: Mapping[str, Sequence[View]] = MappingProxyType({}),
        pixels: PixelStore | None = None,
        quiet: bool = False,
    ) -> None:
        self._views, self._pixels, self._quiet = views, pixels, quiet
        self._inputs, self._tables, self._config, self._all_inputs = inputs, tables, config, [inputs, *beside.values()]
        self.beside = {
            name: Loaders(each, tables, config, device, layout=layout, augment=augment, beside={}, views=views, quiet=quiet)
            for name, each in beside.items()
        }
        for loaders in self.beside.values():
            loaders._all_inputs = self._all_inputs
        self._device, self._layout, self._augment = device, layout, augment
        parts = {table.source: table.inputs for table in tables.values()} | ({} if augment is None else {"the augmentation": augment})
        largest = 0 if isinstance(inputs, Text) else max(map(len, tables.values()), default=0)
        most = default_workers(device, largest)
        self._most = usable_workers(config.workers, most, parts)  # before anything is trained
        self._asked = config.workers is not None
        self._samples: dict[Kind, Samples | TextSamples] = {}  # shared by all loaders, as texts are encoded once
        self._lasting: dict[Kind, Loader] = {}

    def table(self, kind: Kind) -> Table:
        """Return the data of a kind."""
        table = self._tables[kind.table]
        return table.origin.table if kind.whole and table.origin is not None else table

    def first(self) -> Loader:
        """Return the lasting loader of the first table, not augmented."""
        return self.lasting(Kind(next(iter(self._tables))))

    def lasting(self, kind: Kind) -> Loader:
        """Return a loader whose workers persist until ``close``."""
        if kind not in self._lasting:
            self._lasting[kind] = self._make(kind, keep_workers=True)
        return self._lasting[kind]

    def fresh(self, kind: Kind) -> Loader:
        """Return a loader for one pass, whose workers end with the pass."""
        return self._make(kind, keep_workers=False)

    def close(self) -> None:
        """End the workers of every loader."""
        for loader in self._lasting.values():
            loader.close()
        self._lasting.clear()
        for loaders in self.beside.values():
            loaders.close()

    def _make(self, kind: Kind, *, keep_workers: bool) -> Loader:
        if kind not in self._samples:
            self._samples[kind] = self._open(kind)
        samples = self._samples[kind]
        workers = self._most if self._asked else min(self._most, default_workers(self._device, _images(samples)))
        return Loader(samples, self._device, workers=workers, layout=self._layout, keep_workers=keep_workers)

    def _open(self, kind: Kind) -> Samples | TextSamples:
        table, seed = self.table(kind), self._config.seed
        if kind.augmented and (views := self._views.get(kind.table)):
            view, inputs = views[kind.view], self._inputs
            if view.size is not None:
                assert isinstance(inputs, Image), "only images have crops of another size"
                inputs = replace(inputs, size=view.size)
            return samples_for(inputs, table, view.augment, seed=seed)
        augment = Augment(**(self._config.augment or {})) if kind.augmented else None
        if self._pixels is not None and augment is None and isinstance(self._inputs, Image):
            return Samples(table, self._pixels.transform(self._inputs), seed)
        return samples_for(self._inputs, table, augment, seed=seed, own=self._augment, beside=self._all_inputs, quiet=self._quiet)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the device, without waiting for a GPU."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def default_workers(device: torch.device, images: int) -> int:
    """Return the default number of loader processes: 0 on the CPU, else one per core of this process and per 64 images, at most 16.

    The ranks on one machine, ``LOCAL_WORLD_SIZE`` of them, share its cores.

    Args:
        device: Device that computes.
        images: Number of images (pixels, volumes) to load; 0 for texts, whose token ids are only padded.
    """
    beside = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return 0 if device.type == "cpu" or not images else max(1, min(16, usable_cores() // beside, -(-images // 64)))


def _images(samples: Samples | TextSamples) -> int:
    return 0 if isinstance(samples, TextSamples) else len(samples)


def _quiet_iterator(loader: DataLoader[Any]) -> Iterator[Any]:
    with warnings.catch_warnings():
        # Python 3.12 warns of any fork in a process with threads; loader workers use neither torch's threads nor our locks.
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Got pickle error", category=UserWarning)  # an error of ours names it
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        return iter(loader)
