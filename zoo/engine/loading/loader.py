"""Batches on the device, in an order that the caller gives anew for each epoch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.data.dataset import Batched, Inputs, Samples
from zoo.data.open import Table
from zoo.data.text import TextSamples
from zoo.data.transforms import Augment
from zoo.data.workers import worker_init
from zoo.engine.loading.order import Batch
from zoo.engine.loading.samples import samples_for
from zoo.engine.loading.worker_watchdog import Watched, WatchedLoader
from zoo.engine.options.config import Config
from zoo.models.task_model import TaskModel

Loaded: TypeAlias = Batched


class _Order(Sequence[Batch]):
    """The batches of the epoch that comes next; replaced between epochs, so that workers can live on."""

    def __init__(self) -> None:
        self.batches: Sequence[Batch] = []

    def __getitem__(self, index: Any) -> Any:
        return self.batches[index]

    def __len__(self) -> int:
        return len(self.batches)


class Loader:
    """Loads given batches of the same samples, again and again.

    Args:
        samples: What to load.
        device: Where batches go.
        workers: Loader processes; 0 loads in this process, None chooses.
        layout: Memory format of the inputs on the device.
        keep_workers: Whether the processes live on for another pass; else they end with each.
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
        self.samples, self._device, self._layout = samples, device, layout
        self._order = _Order()
        number = default_workers(device) if workers is None else workers
        self._loader = WatchedLoader(
            Watched(samples, number) if number else samples,  # type: ignore[arg-type]  # texts are a dataset by what they can do
            batch_sampler=self._order,
            num_workers=number,
            collate_fn=samples.collate,
            pin_memory=device.type == "cuda",
            worker_init_fn=worker_init() if number else None,
            persistent_workers=keep_workers and number > 0,
            # A private one: every iterator would otherwise draw from the global generator and shift all that comes after.
            generator=torch.Generator(),
        )

    def batches(self, order: Sequence[Batch], epoch: int = 0) -> Iterator[Loaded]:
        """Yield ``(inputs, targets, sample indices)`` for each batch of indices, on the device."""
        self.samples.set_epoch(epoch)
        self._order.batches = order
        for inputs, targets, indices in _quiet_iterator(self._loader):
            yield self._placed(inputs), targets.to(self._device, non_blocking=True), indices

    def close(self) -> None:
        """End the workers; the next pass starts others."""
        self._loader.close()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample's tensor."""
        return tuple(self.samples[0][0].shape)  # type: ignore[union-attr]  # asked of pixels only

    def _placed(self, inputs: Inputs) -> Inputs:
        if isinstance(inputs, dict):
            return {name: x.to(self._device, non_blocking=True) for name, x in inputs.items()}
        x = inputs.to(self._device, non_blocking=True)
        return x.contiguous(memory_format=torch.channels_last) if self._layout == torch.channels_last and x.ndim == 4 else x


class Loaders:
    """Loaders by kind: ``plain`` and ``augmented`` training samples, and ``valid`` for those of validation.

    Args:
        model: The model, for its declared input.
        train: Training data with encoded targets.
        valid: Validation data, or None.
        config: The resolved configuration.
        device: Where batches go.
        layout: Memory format of the inputs.
    """

    def __init__(
        self, model: TaskModel, train: Table, valid: Table | None, config: Config, device: torch.device, *, layout: torch.memory_format
    ) -> None:
        self._inputs, self._train, self._valid, self._config = model.inputs, train, valid, config
        self._device, self._layout = device, layout
        self._samples: dict[str, Samples | TextSamples] = {}  # for the whole run: texts are encoded once
        self._kept: dict[str, Loader] = {}

    def table(self, kind: str) -> Table:
        """Return the data of a kind."""
        table = self._valid if kind == "valid" else self._train
        assert table is not None, "asked for validation without validation data"
        return table

    def kept(self, kind: str) -> Loader:
        """Return the loader that lives on, with its workers, until ``close``."""
        if kind not in self._kept:
            self._kept[kind] = self._make(kind, keep_workers=True)
        return self._kept[kind]

    def fresh(self, kind: str) -> Loader:
        """Return a loader for one pass; its workers end with it, instead of idling beside what comes after."""
        return self._make(kind, keep_workers=False)

    def close(self) -> None:
        """End the workers of every loader."""
        for loader in self._kept.values():
            loader.close()
        self._kept.clear()

    def _make(self, kind: str, *, keep_workers: bool) -> Loader:
        if kind not in self._samples:
            augment = Augment(**(self._config.augment or {})) if kind == "augmented" else None
            self._samples[kind] = samples_for(self._inputs, self.table(kind), augment, seed=self._config.seed)
        workers = self._config.workers
        return Loader(self._samples[kind], self._device, workers=workers, layout=self._layout, keep_workers=keep_workers)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the device; a GPU is not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def default_workers(device: torch.device) -> int:
    """Return how many loader processes pay off: none beside computing on the CPU, else one per core of this process, at most 8.

    The processes of a run on one machine share its cores, as ``LOCAL_WORLD_SIZE`` tells.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return 0 if device.type == "cpu" else max(1, min(8, cores // beside))


def _quiet_iterator(loader: DataLoader[Any]) -> Iterator[Any]:
    with warnings.catch_warnings():
        # Python 3.12 warns of any fork beside threads; loader workers touch neither torch's thread pool nor locks of ours.
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        return iter(loader)
