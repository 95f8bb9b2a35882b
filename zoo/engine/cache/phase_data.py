"""Raw batches, or cached activations for the trainable layers, of each phase of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch, ModelInputs
from zoo.data.table import Table
from zoo.engine.cache.activation_cache import cut_inputs, targets_of, too_large
from zoo.engine.cache.forward import Forward
from zoo.engine.cache.frozen_prefix import FrozenPrefix
from zoo.engine.cache.passes import Passes
from zoo.engine.inference.batched_inference import Outputs, in_batches_that_fit
from zoo.engine.inference.window_pooling import pool_windows
from zoo.engine.loading.loader import Kind, Loaders, to_device
from zoo.engine.loading.order import Indices
from zoo.engine.loading.stream import Source, Stream
from zoo.engine.options.epochs import Epoch
from zoo.engine.rundir.run_context import RunContext
from zoo.errors import OptionError
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task

log = logging.getLogger("zoo")
BatchFunction = Callable[[Sequence[Indices], int], Iterable[Batch]]


class PhaseData:
    """The data of one run; frozen modules run once per phase, source and view.

    Args:
        model: The model.
        sources: Training data of the objective, by name.
        valid: Validation data, by name.
        context: The conditions of the run.
        frozen: The objective's frozen modules, whose outputs are stored per sample where its views are fixed. One with an
            attribute ``inputs`` gets the views as that declares; one with an attribute ``width``, the number of values of a row, is
            stored only where ``cache_gb`` allows for it.
        obstacle: Why activations must not be stored, for the log; empty where they may be.
        share: Whether other runs of this process may use the outputs of the frozen prefix.
        steady: Whether a sample is the same each time that it is read.
        lasting: Whether pooled features are also written to files for other processes.

    Attributes:
        loaders: The loaders of all tables; to be closed at the end of the run.
        passes: Runs passes without gradients.
        prefix: Stored outputs of the frozen prefix.
        augments: Whether the samples of augmented epochs are augmented.
    """

    def __init__(
        self,
        model: TaskModel,
        sources: Mapping[str, Source],
        valid: Mapping[str, Table],
        context: RunContext,
        *,
        frozen: Mapping[str, nn.Module] | None = None,
        obstacle: str = "",
        share: bool = True,
        steady: bool = True,
        lasting: bool = False,
    ) -> None:
        self._model, self._sources, self._context, self._frozen = model, sources, context, frozen or {}
        self._steady, self.augments = steady, True
        self._valid_names = {name: name if name not in sources else f"{name} (validation)" for name in valid}
        tables = {name: source.table for name, source in sources.items()}
        tables |= {self._valid_names[name]: table for name, table in valid.items()}
        declared = {key: getattr(module, "inputs", model.inputs) for key, module in self._frozen.items()}
        beside = {key: inputs for key, inputs in declared.items() if inputs != model.inputs}
        options: dict[str, Any] = {"layout": context.layout, "augment": context.own.augment, "beside": beside}
        self.loaders = Loaders(model.inputs, tables, context.config, context.device, **options)
        self.passes = Passes(context)
        self.prefix = FrozenPrefix(model, self.loaders, self.passes, context, obstacle=obstacle, share=share, lasting=lasting)
        self._outputs: dict[tuple[str, str, int], Tensor] = {}

    def train(self, epoch: Epoch) -> dict[str, Stream]:
        """Return the training batches of ``epoch``; the model's frozen prefix must be set already. May leave the model in eval mode."""
        self.prefix.open_phase(epoch)
        return {name: self._stream(epoch, name, source) for name, source in self._sources.items()}

    def forward(self, epoch: Epoch | None) -> Forward:
        """Return the forward passes for batches of ``epoch``; without one those for raw inputs."""
        boundary = None if epoch is None else self.prefix.boundary
        return Forward(self._model, self._context, boundary=boundary, pooled=epoch is not None and epoch.pooled)

    def inputs(self, order: Sequence[Indices]) -> Iterator[ModelInputs]:
        """Yield the inputs of batches of the first source's samples, not augmented."""
        for batch in self.loaders.first().batches(order):
            yield batch.x
            self._context.poll()

    def infer(self, epoch: Epoch | None, name: str) -> Outputs:
        """Return the model's logits for all samples of a validation table, ``(samples, classes)``; for words as ``run_words`` does.

        Those of the windows of a text are pooled. Without an epoch no stored outputs of a frozen prefix are used.
        """
        rows = self.loaders.table(Kind(self._valid_names[name]))
        return pool_windows(self._infer_rows(epoch, name), rows, find_task(self._model.task).pool)

    def _infer_rows(self, epoch: Epoch | None, name: str) -> Outputs:
        table = self._valid_names[name]
        if epoch is not None:
            self.prefix.open_phase(epoch)
            if epoch.pooled:
                return self._pooled_logits(self.prefix.features(table)[0])
        activations = None if epoch is None else self.prefix.activations(table)
        source = activations or self.loaders.lasting(Kind(table))
        words = find_task(self._model.task).per_token
        return self.passes.run(self.forward(epoch), source, len(self.loaders.table(Kind(table))), "valid", words=words)

    def head_inputs(self, name: str) -> tuple[Tensor, Table]:
        """Return what a linear head on the frozen backbone reads of a source, a row per sample or word, and the table of these rows."""
        if find_task(self._model.task).per_token:
            return self.prefix.words(name)
        return self.prefix.features(name)[0], self._sources[name].table

    def sizes(self, name: str, lengths: npt.NDArray[np.int64]) -> list[int]:
        """Return the bytes of each tensor that is stored of one view of a source or validation table with samples of these lengths."""
        return self.prefix.sizes(self._valid_names.get(name, name), lengths)

    def _stream(self, epoch: Epoch, name: str, source: Source) -> Stream:
        lengths = self.loaders.lasting(Kind(name)).samples.lengths if not epoch.pooled else None
        bases = [self._batches(epoch, name, view) for view in range(source.views)]
        if self._frozen:
            bases[0] = self._with_outputs(epoch, name, bases[0])
        return Stream(bases[0] if len(bases) == 1 else _side_by_side(bases), lengths)

    def _batches(self, epoch: Epoch, name: str, view: int) -> BatchFunction:
        """Return the batches of one view of a source."""
        views = self._context.config.views
        if epoch.pooled:
            features = self.prefix.features(name, views=views)
            return cached_batches(features, targets_of(self._sources[name].table), self._context.device)
        if activations := self.prefix.activations(name, views=views):
            return activations.batches
        return self._raw(self.loaders, epoch, name, view)

    def _raw(self, loaders: Loaders, epoch: Epoch, name: str, view: int) -> BatchFunction:
        """Return the batches of inputs of one view of a source."""
        if epoch.cached and self._context.config.views > 1:
            return lambda order, position: self._fixed_view(loaders, Kind(name, view=view), order, position)
        return loaders.lasting(Kind(name, epoch.augment and self.augments, view)).batches

    def _fixed_view(self, loaders: Loaders, kind: Kind, order: Sequence[Indices], position: int) -> Iterable[Batch]:
        """Yield batches of the views that were to be stored: the training data must not depend on whether there is room for them."""
        drawn = position % self._context.config.views
        return loaders.lasting(kind._replace(augmented=drawn > 0)).batches(order, drawn)

    def _with_outputs(self, epoch: Epoch, name: str, batches: BatchFunction) -> BatchFunction:
        """Return batches with the outputs of the objective's frozen modules: stored where a sample's views are fixed, else computed."""
        views = self._context.config.views if epoch.cached else 1
        fixed = self._steady and (epoch.cached or not (epoch.augment and self.augments))
        stored = [key for key in self._frozen if fixed and self._fits(key, name, views)]
        # Pooled features and stored activations are no inputs of a frozen module.
        read = {key: self._loaders_of(key) for key in self._frozen if key not in stored and (key in self.loaders.beside or epoch.cached)}
        raw = {key: self._raw(loaders, epoch, name, 0) for key, loaders in read.items()}

        def with_outputs(order: Sequence[Indices], position: int) -> Iterator[Batch]:
            inputs = {key: iter(function(order, position)) for key, function in raw.items()}
            for batch in batches(order, position):
                rows = torch.tensor(batch.indices)
                outputs = {key: to_device(self._output(key, name, position % views)[rows], self._context.device) for key in stored}
                for key in self._frozen.keys() - stored:
                    outputs[key] = self._outputs_now(key, next(inputs[key]) if key in inputs else batch)
                yield batch._replace(frozen=outputs)

        for key in stored:  # now, not in the middle of a step
            for view in range(views):
                self._output(key, name, view)
        return with_outputs

    def _loaders_of(self, key: str) -> Loaders:
        """Return the loaders of the inputs that a frozen module takes."""
        return self.loaders.beside.get(key, self.loaders)

    def _fits(self, key: str, name: str, views: int) -> bool:
        """Return whether the outputs of a frozen module for a source may be stored; logged if not."""
        width, limit = int(getattr(self._frozen[key], "width", 0)), int(self._context.config.cache_gb * 2**30)
        size = width * np.dtype(np.float32).itemsize * len(self._sources[name].table) * views
        held = sum(outputs.nbytes for place, outputs in self._outputs.items() if place[:2] != (key, name))
        if size + held > limit:
            log.info("the outputs of %s are computed in every epoch: %s", key, too_large(size + held, limit))
        return size + held <= limit

    def _rows(self, key: str, x: Any) -> Tensor:
        """Return the outputs of a frozen module for a batch of inputs, a row per sample."""
        found = self._frozen[key](x)
        count = len(next(iter(x.values())) if isinstance(x, Mapping) else x)
        if not isinstance(found, Tensor) or not found.ndim or len(found) != count:
            what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise OptionError(f"frozen {key!r} of the objective returned {what} for {count} samples; it must return a row for each")
        return found

    def _outputs_now(self, key: str, batch: Batch) -> Tensor:
        """Return the outputs of a frozen module for a batch, in parts that fit into memory."""
        count = len(batch.indices)

        def run(size: int) -> Tensor:
            if size >= count:
                return self._rows(key, batch.x)
            return torch.cat([self._rows(key, cut_inputs(batch.x, slice(start, start + size))) for start in range(0, count, size)])

        with torch.no_grad(), self._context.autocast():
            return self.passes.in_batches_that_fit(run)

    def _output(self, key: str, name: str, view: int) -> Tensor:
        """Return the outputs of a frozen module for every sample of a source, computed at the first call."""
        place = key, name, view
        if place not in self._outputs:
            loader, count = self._loaders_of(key).fresh(Kind(name, view > 0)), len(self._sources[name].table)
            outputs = self.passes.run(self._context.cast(partial(self._rows, key)), loader, count, key, view=view)
            self._outputs[place] = torch.from_numpy(outputs)
        return self._outputs[place]

    def _pooled_logits(self, features: Tensor) -> Outputs:
        head = self._context.cast(self._model.pooled_logits)

        def run(size: int) -> Outputs:
            with torch.no_grad():
                parts = [head(part.to(self._context.device)).float().cpu() for part in torch.split(features, size)]
            return np.asarray(torch.cat(parts).numpy())

        return in_batches_that_fit(run, max(self.passes.batch_size, len(features)), halved=lambda: None)


def cached_batches(views: Sequence[Tensor], targets: Tensor, device: torch.device) -> BatchFunction:
    """Return batches of cached features; epoch e takes view e modulo their number."""

    def batches(order: Sequence[Indices], epoch: int) -> Iterator[Batch]:
        features = views[epoch % len(views)]
        for indices in order:
            rows = torch.tensor(indices)
            yield Batch(to_device(features[rows], device), to_device(targets[rows], device), indices)

    return batches


def _side_by_side(views: Sequence[BatchFunction]) -> BatchFunction:
    """Return batches with several views of each sample, augmented independently."""

    def batches(order: Sequence[Indices], epoch: int) -> Iterator[Batch]:
        iterators = [iter(view(order, epoch * len(views) + number)) for number, view in enumerate(views)]
        for first, *others in zip(*iterators, strict=True):
            yield first._replace(views=tuple(batch.x for batch in others))

    return batches
