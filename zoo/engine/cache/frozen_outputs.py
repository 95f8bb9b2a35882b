"""Outputs of an objective's frozen modules: stored for all samples of a source, or computed for a batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch
from zoo.data.table import Table
from zoo.engine.cache.activation_cache import cut_inputs, too_large
from zoo.engine.cache.passes import Passes
from zoo.engine.loading.loader import Kind, Loaders
from zoo.engine.rundir.run_context import RunContext
from zoo.errors import OptionError

log = logging.getLogger("zoo")


class FrozenOutputs:
    """A row of outputs per sample of each frozen module.

    Args:
        modules: The modules by name.
        tables: The training data by name.
        loaders: The loaders of the run, with those of inputs that modules declare beside them.
        passes: Runs passes without gradients.
        context: The conditions of the run.

    Attributes:
        names: Names of the modules.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], tables: Mapping[str, Table], loaders: Loaders, passes: Passes, context: RunContext
    ) -> None:
        self._modules, self._tables, self._loaders, self._passes, self._context = modules, tables, loaders, passes, context
        self._outputs: dict[tuple[str, str, int], Tensor] = {}
        self.names = list(modules)

    def loaders_of(self, key: str) -> Loaders:
        """Return the loaders of the inputs that a frozen module takes."""
        return self._loaders.beside.get(key, self._loaders)

    def fits(self, key: str, name: str, views: int) -> bool:
        """Return whether the outputs of a frozen module for a source may be stored; logged if not."""
        width, limit = int(getattr(self._modules[key], "width", 0)), int(self._context.config.cache_gb * 2**30)
        size = width * np.dtype(np.float32).itemsize * len(self._tables[name]) * views
        held = sum(outputs.nbytes for place, outputs in self._outputs.items() if place[:2] != (key, name))
        if size + held > limit:
            log.info("the outputs of %s are computed in every epoch: %s", key, too_large(size + held, limit))
        return size + held <= limit

    def _rows(self, key: str, x: Any) -> Tensor:
        """Return the outputs of a frozen module for a batch of inputs, a row per sample."""
        found = self._modules[key](x)
        count = len(next(iter(x.values())) if isinstance(x, Mapping) else x)
        if not isinstance(found, Tensor) or not found.ndim or len(found) != count:
            what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise OptionError(f"frozen {key!r} of the objective returned {what} for {count} samples; it must return a row for each")
        return found

    def of(self, key: str, batch: Batch) -> Tensor:
        """Return the outputs of a frozen module for a batch, in parts that fit into memory."""
        count = len(batch.indices)

        def run(size: int) -> Tensor:
            if size >= count:
                return self._rows(key, batch.x)
            return torch.cat([self._rows(key, cut_inputs(batch.x, slice(start, start + size))) for start in range(0, count, size)])

        with torch.no_grad(), self._context.autocast():
            return self._passes.in_batches_that_fit(run)

    def of_all(self, key: str, name: str, view: int) -> Tensor:
        """Return the outputs of a frozen module for every sample of a source, computed at the first call."""
        place = key, name, view
        if place not in self._outputs:
            loader, count = self.loaders_of(key).fresh(Kind(name, view > 0)), len(self._tables[name])
            outputs = self._passes.run(self._context.cast(partial(self._rows, key)), loader, count, key, view=view)
            self._outputs[place] = torch.from_numpy(outputs)
        return self._outputs[place]
