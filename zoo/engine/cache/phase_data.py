"""Raw batches, or cached activations for the trainable layers: what each phase of a run trains on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch, ModelInputs
from zoo.data.table import Table
from zoo.engine.cache.activation_cache import ActivationCache, Whole, find_boundary, targets_of
from zoo.engine.cache.feature_memo import Keys, feature_memo
from zoo.engine.cache.forward import Forward
from zoo.engine.inference.batched_inference import Outputs, in_batches_that_fit, run_all, run_words
from zoo.engine.loading.loader import Kind, Loader, Loaders, to_device
from zoo.engine.loading.order import Indices
from zoo.engine.loading.stream import BatchSource, Function, Source, Stream
from zoo.engine.options.epochs import Epoch
from zoo.engine.rundir.run_context import RunContext
from zoo.errors import DiskFullError, ZooError
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tuning.partial_forward import Boundary

log = logging.getLogger("zoo")
T = TypeVar("T")
BatchFunction = Callable[[Sequence[Indices], int], Iterable[Batch]]


class PhaseData:
    """The data of one run; what is frozen is computed once per phase, source and view.

    Args:
        model: The model.
        sources: What the objective trains on, by name.
        valid: What it validates on, by name.
        context: The conditions of the run.
        frozen: The objective's frozen modules, whose outputs are stored per sample where its views are fixed.
        whole: Why the model is not entered in the middle, for the log; empty where it may be.
        share: Whether what is frozen is shared with other runs of this process.

    Attributes:
        split: By how much memory cuts the batches of a pass.
        reason: Why the frozen prefix of the present phase is computed every epoch though it could be stored; else empty.
    """

    def __init__(
        self,
        model: TaskModel,
        sources: Mapping[str, Source],
        valid: Mapping[str, Table],
        context: RunContext,
        *,
        frozen: Mapping[str, nn.Module] | None = None,
        whole: str = "",
        share: bool = True,
    ) -> None:
        self._model, self._sources, self._context, self._frozen = model, sources, context, frozen or {}
        self._valid_names = {name: name if name not in sources else f"{name} (validation)" for name in valid}
        tables = {name: source.table for name, source in sources.items()}
        tables |= {self._valid_names[name]: table for name, table in valid.items()}
        self._loaders = Loaders(model, tables, context.config, context.device, layout=context.layout, augment=context.own.augment)
        # Views of an augmentation of the user's own cannot be told apart by what they depend on.
        alike = context.ranks.count == 1 and context.own.augment is None
        self._keys = Keys(model, context) if share and alike else None
        self._features: dict[str, list[Tensor]] = {}
        self._entered: dict[str, ActivationCache] = {}
        self._stored: dict[tuple[str, str, int], Tensor] = {}
        self._boundary: Boundary | Whole | None = None
        self._phase, self._whole = -1, whole
        self.reason, self.split = "", 1

    def train(self, epoch: Epoch) -> dict[str, Stream]:
        """Return what ``epoch`` trains on; the model's frozen prefix must be set already. May leave the model in eval mode."""
        self._open_phase(epoch)
        return {name: self._stream(epoch, name, source) for name, source in self._sources.items()}

    def forward(self, epoch: Epoch | None) -> Forward:
        """Return the passes for batches of ``epoch``; without one those for raw inputs."""
        boundary = None if epoch is None else self._boundary
        return Forward(self._model, self._context, boundary=boundary, pooled=epoch is not None and epoch.pooled)

    def close(self) -> None:
        """End the workers of every loader."""
        self._loaders.close()

    def plain(self) -> Loader:
        """Return the loader of the first source's samples as they are, not augmented."""
        return self._loaders.lasting(Kind(next(iter(self._sources))))

    def inputs(self, order: Sequence[Indices]) -> Iterator[ModelInputs]:
        """Yield the inputs of batches of the first source's samples as they are, not augmented."""
        for batch in self.plain().batches(order):
            yield batch.x
            self._context.stop.poll()
            self._context.ranks.heed()

    def infer(self, epoch: Epoch | None, name: str) -> Outputs:
        """Return the model's logits for all samples of a validation table, ``(samples, classes)``; for words as ``run_words`` does.

        Without an epoch nothing that was stored of a frozen prefix is used.
        """
        table = self._valid_names[name]
        if epoch is not None:
            self._open_phase(epoch)
        if epoch is not None and epoch.pooled:
            return self._pooled_logits(self._pooled(table)[0])
        cached = None if epoch is None else self._activations(epoch, table)
        source = cached or self._loaders.lasting(Kind(table))
        words = find_task(self._model.task).per_token
        return self._pass(self.forward(epoch), source, len(self._loaders.table(Kind(table))), "valid", words=words)

    def sizes(self, name: str, lengths: npt.NDArray[np.int64]) -> list[int]:
        """Return the bytes of each tensor that is stored of one view of a table, had it samples of these lengths."""
        name = self._valid_names.get(name, name)
        if name in self._features:
            features = self._features[name][0]
            return [len(lengths) * features[0].numel() * features.itemsize]
        return self._entered[name].sizes(lengths) if name in self._entered else []

    def _stream(self, epoch: Epoch, name: str, source: Source) -> Stream:
        lengths = self._loaders.lasting(Kind(name)).samples.lengths if not epoch.pooled else None
        bases = [self._batches(epoch, name, view) for view in range(source.views)]
        if self._frozen:
            bases[0] = self._with_outputs(epoch, name, bases[0])
        return Stream(bases[0] if len(bases) == 1 else _side_by_side(bases), lengths)

    def _batches(self, epoch: Epoch, name: str, view: int) -> BatchFunction:
        """Return the batches of one view of a source."""
        if epoch.pooled:
            return cached_batches(self._pooled(name), targets_of(self._sources[name].table), self._context.device)
        if cached := self._activations(epoch, name):
            return cached.batches
        if epoch.cached and self._context.config.views > 1:
            return lambda order, position: self._fixed_view(name, view, order, position)
        return self._loaders.lasting(Kind(name, epoch.augment, view)).batches

    def _fixed_view(self, name: str, view: int, order: Sequence[Indices], position: int) -> Iterable[Batch]:
        """Yield batches of the views that were to be stored: what a run trains on must not hang on whether there is room for them."""
        drawn = position % self._context.config.views
        return self._loaders.lasting(Kind(name, drawn > 0, view)).batches(order, drawn)

    def _with_outputs(self, epoch: Epoch, name: str, batches: BatchFunction) -> BatchFunction:
        """Return batches with the outputs of the objective's frozen modules: stored where a sample's views are fixed, else computed."""
        views = self._context.config.views if epoch.cached else 1
        fixed = epoch.cached or not epoch.augment

        def with_outputs(order: Sequence[Indices], position: int) -> Iterator[Batch]:
            for batch in batches(order, position):
                if fixed:
                    found = {key: self._output(key, name, position % views)[torch.tensor(batch.indices)] for key in self._frozen}
                    outputs = {key: to_device(rows, self._context.device) for key, rows in found.items()}
                else:
                    with torch.no_grad(), self._context.autocast():
                        outputs = {key: module(batch.x) for key, module in self._frozen.items()}
                yield batch._replace(frozen=outputs)

        if fixed:  # now, and not in the middle of a step
            for key in self._frozen:
                for view in range(views):
                    self._output(key, name, view)
        return with_outputs

    def _output(self, key: str, name: str, view: int) -> Tensor:
        """Return the outputs of a frozen module for every sample of a source, computed at the first call."""
        place = key, name, view
        if place not in self._stored:
            loader = self._loaders.fresh(Kind(name, view > 0))
            number = len(self._sources[name].table)
            outputs = self._pass(self._context.cast(self._frozen[key]), loader, number, key, view)
            self._stored[place] = torch.from_numpy(outputs)
        return self._stored[place]

    def _pooled_logits(self, features: Tensor) -> Outputs:
        head = self._context.cast(self._model.pooled_logits)

        def run(size: int) -> Outputs:
            with torch.no_grad():
                parts = [head(part.to(self._context.device)).float().cpu() for part in torch.split(features, size)]
            return np.asarray(torch.cat(parts).numpy())

        return in_batches_that_fit(run, max(self._size, len(features)), halved=lambda: None)

    def _open_phase(self, epoch: Epoch) -> None:
        # Another phase may have trained the backbone in between.
        if epoch.index == self._phase:
            return
        self._features.clear()
        self._entered.clear()
        self.close()
        self._phase, self._boundary, self.reason = epoch.index, None, ""
        if self._keys is not None:
            self._keys.model_changed()
        if epoch.cached and not epoch.pooled and self._whole:
            self._not_stored(epoch, self._whole)
        elif epoch.cached and not epoch.pooled:
            with self._context.ranks.together(), self._context.autocast():  # as it will be used
                found = find_boundary(self._model, epoch.frozen, self.plain())
            reasons = list(filter(None, self._context.ranks.gather(found if isinstance(found, str) else "")))
            if isinstance(found, str) or reasons:
                self._not_stored(epoch, reasons[0])
            else:
                self._boundary = found

    def _kinds(self, name: str) -> list[tuple[Kind, int]]:
        """Return every fixed view of a table, with its number."""
        views = self._context.config.views if name in self._sources else 1
        return [(Kind(name), 0), *((Kind(name, augmented=True), view) for view in range(1, views))]

    def _activations(self, epoch: Epoch, name: str) -> ActivationCache | None:
        """Return what entered the boundary, computed at the first call; None where the model runs as a whole."""
        if self._boundary is None or name in self._entered:
            return self._entered.get(name)
        views = self._kinds(name)
        cached = ActivationCache(self._boundary, self._loaders.lasting(views[0][0]), self._context.device)
        try:
            for kind, view in views:
                if not cached.adopt(feature_memo().get(self._key("entered", kind, view))):
                    self._fill(cached, kind, view)
                    feature_memo().put(self._key("entered", kind, view), *cached.newest)  # memory may have made the batches smaller
        except OSError as error:
            if isinstance(error, ZooError) and not isinstance(error, DiskFullError):
                raise  # a sample that cannot be read is no reason to compute it every epoch
            self._not_stored(epoch, str(error))
            self._boundary = None
            self._entered.clear()  # training must not enter where validation cannot
            return None
        self._entered[name] = cached
        return cached

    def _not_stored(self, epoch: Epoch, reason: str) -> None:
        self.reason = reason
        log.info("the frozen prefix of phase %r is computed every epoch: %s", epoch.phase.name, reason)

    def _fill(self, cached: ActivationCache, kind: Kind, view: int) -> None:
        self._model.eval()
        self._context.progress.begin("frozen part", len(self._loaders.table(kind)))
        held = cached.nbytes + sum(other.nbytes for other in self._entered.values())
        with self._context.autocast():
            loader = self._loaders.fresh(kind)
            options: dict[str, Any] = {
                "held": held,
                "limit": int(self._context.config.cache_gb * 2**30),
                "folder": self._context.folder,
                "ranks": self._context.ranks,
                "each": self._after_batch,
            }
            self._fitting(lambda size: cached.fill(loader, view, batch_size=size, **options))

    def _pooled(self, name: str) -> list[Tensor]:
        """Return the pooled features of every fixed view of a table, computed at the first call."""
        if name not in self._features:
            self._features[name] = [self._extract(kind, view) for kind, view in self._kinds(name)]
        return self._features[name]

    def _extract(self, kind: Kind, view: int) -> Tensor:
        features: Tensor | None = feature_memo().get(self._key("pooled", kind, view))
        if features is None:
            self._model.eval()
            loader, number = self._loaders.fresh(kind), len(self._loaders.table(kind))
            features = torch.from_numpy(self._pass(self._context.cast(self._model.embed_batch), loader, number, "features", view))
            feature_memo().put(self._key("pooled", kind, view), features, features.nbytes)
        return features

    def _key(self, what: str, kind: Kind, view: int) -> str:
        """Return what identifies values of the frozen prefix among the runs of this process; nothing if they are not shared."""
        return "" if self._keys is None else self._keys.of(what, self._loaders.table(kind), kind, view, batch_size=self._size)

    def _pass(self, forward: Function, source: BatchSource, count: int, what: str, view: int = 0, *, words: bool = False) -> Outputs:
        self._context.progress.begin(what, count)
        options: dict[str, Any] = {"each": self._after_batch, "ranks": self._context.ranks}
        if words:
            return self._fitting(lambda size: run_words(forward, source, count, size, **options))
        return self._fitting(lambda size: run_all(forward, source, count, size, epoch=view, **options))

    @property
    def _size(self) -> int:
        """Samples of a batch without gradients, of which more fit into memory than in training."""
        return max(1, 2 * -(-self._context.config.samples // self._context.ranks.count) // self.split)

    def _fitting(self, run: Callable[[int], T]) -> T:
        return in_batches_that_fit(run, self._size, halved=self._halve if self._context.ranks.count == 1 else None)

    def _halve(self) -> None:
        self.split *= 2

    def _after_batch(self, done: int) -> None:
        progress, ranks = self._context.progress, self._context.ranks
        if progress.due:
            progress.step(done)
        with ranks.together() if ranks.lockstep else nullcontext():
            self._context.stop.poll()
        ranks.heed()


def cached_batches(views: Sequence[Tensor], targets: Tensor, device: torch.device) -> BatchFunction:
    """Return batches of cached features; epoch e takes view e modulo their number."""

    def batches(order: Sequence[Indices], epoch: int) -> Iterator[Batch]:
        features = views[epoch % len(views)]
        for indices in order:
            rows = torch.tensor(indices)
            yield Batch(to_device(features[rows], device), to_device(targets[rows], device), indices)

    return batches


def _side_by_side(views: Sequence[BatchFunction]) -> BatchFunction:
    """Return batches with several views of each sample, each drawn by itself."""

    def batches(order: Sequence[Indices], epoch: int) -> Iterator[Batch]:
        iterators = [iter(view(order, epoch * len(views) + number)) for number, view in enumerate(views)]
        for first, *others in zip(*iterators, strict=True):
            yield first._replace(views=tuple(batch.x for batch in others))

    return batches
