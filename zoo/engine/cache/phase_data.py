"""Raw batches, or cached activations for the trainable layers, of each phase of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch, ModelInputs
from zoo.data.table import Table
from zoo.engine.cache.activation_cache import targets_of
from zoo.engine.cache.forward import Forward
from zoo.engine.cache.frozen_outputs import FrozenOutputs
from zoo.engine.cache.frozen_prefix import FrozenPrefix
from zoo.engine.cache.passes import Passes
from zoo.engine.inference.batched_inference import Outputs, in_batches_that_fit
from zoo.engine.inference.window_pooling import pool_windows
from zoo.engine.loading.loader import Kind, Loaders, to_device
from zoo.engine.loading.order import Indices
from zoo.engine.loading.stream import Source, Stream
from zoo.engine.options.epochs import Epoch
from zoo.engine.rundir.run_context import RunContext
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task

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
        quiet: Do not log how many texts are cut.

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
        quiet: bool = False,
    ) -> None:
        self._model, self._sources, self._context = model, sources, context
        self._steady, self.augments = steady, True
        self._valid_names = {name: name if name not in sources else f"{name} (validation)" for name in valid}
        tables = {name: source.table for name, source in sources.items()}
        tables |= {self._valid_names[name]: table for name, table in valid.items()}
        declared = {key: getattr(module, "inputs", model.inputs) for key, module in (frozen or {}).items()}
        beside = {key: inputs for key, inputs in declared.items() if inputs != model.inputs}
        views = {name: source.own_views for name, source in sources.items()}
        options: dict[str, Any] = {"layout": context.layout, "augment": context.own.augment, "beside": beside, "views": views}
        options |= {"pixels": context.pixels, "quiet": quiet}
        self.loaders = Loaders(model.inputs, tables, context.config, context.device, **options)
        self.passes = Passes(context)
        self.prefix = FrozenPrefix(model, self.loaders, self.passes, context, obstacle=obstacle, share=share, lasting=lasting)
        self._frozen = FrozenOutputs(
            frozen or {}, {name: source.table for name, source in sources.items()}, self.loaders, self.passes, context
        )

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

        Those of the windows of a text are pooled. Without an epoch no stored outputs of a frozen prefix are used, and a source, whose
        samples are then not augmented, may be named instead.
        """
        rows = self.loaders.table(Kind(self._valid_names.get(name, name)))
        return pool_windows(self._infer_rows(epoch, name), rows, find_task(self._model.task).pool)

    def _infer_rows(self, epoch: Epoch | None, name: str) -> Outputs:
        table = self._valid_names.get(name, name)
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
        bases = [self._batches(epoch, name, view) for view in range(source.number_of_views)]
        if self._frozen.names:
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
        if self._sources[name].own_views:
            return loaders.lasting(Kind(name, augmented=True, view=view)).batches
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
        steady = self._steady and not self._sources[name].own_views
        fixed = steady and (epoch.cached or not (epoch.augment and self.augments))
        stored = [key for key in self._frozen.names if fixed and self._frozen.fits(key, name, views)]
        others = [key for key in self._frozen.names if key not in stored]
        # Pooled features and stored activations are no inputs of a frozen module.
        stand_ins = epoch.pooled or self.prefix.activations(name, views=self._context.config.views) is not None
        read = {key: self._frozen.loaders_of(key) for key in others if key in self.loaders.beside or stand_ins}
        # Of each loader one pass at a time: a second one would take its processes from the first.
        raw = {loaders: self._raw(loaders, epoch, name, 0) for loaders in set(read.values())}

        def with_outputs(order: Sequence[Indices], position: int) -> Iterator[Batch]:
            passes = {loaders: iter(function(order, position)) for loaders, function in raw.items()}
            for batch in batches(order, position):
                inputs = {loaders: next(loaded) for loaders, loaded in passes.items()}
                rows = torch.tensor(batch.indices)
                found = {key: self._frozen.of_all(key, name, position % views)[rows] for key in stored}
                outputs = {key: to_device(part, self._context.device) for key, part in found.items()}
                outputs |= {key: self._frozen.of(key, inputs[read[key]] if key in read else batch) for key in others}
                yield batch._replace(frozen=outputs)

        for key in stored:  # now, not in the middle of a step
            for view in range(views):
                self._frozen.of_all(key, name, view)
        return with_outputs

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
