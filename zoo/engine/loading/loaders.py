"""The loaders of one run, made when they are first asked for."""

from __future__ import annotations

import torch

from zoo.data.dataset import Samples
from zoo.data.open import Table
from zoo.data.text import TextSamples
from zoo.data.transforms import Augment
from zoo.engine.inference.batched_inference import samples_for
from zoo.engine.loading.loader import Loader
from zoo.engine.options.config import Config
from zoo.models.task_model import TaskModel


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
