"""Outputs of the frozen prefix, computed once per phase, table and view."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.data.table import Table
from zoo.data.texts.token_ids import TextSamples
from zoo.engine.cache.activation_cache import ActivationCache, EndBoundary, find_boundary
from zoo.engine.cache.feature_files import read_features, write_features
from zoo.engine.cache.feature_memo import Keys, feature_memo
from zoo.engine.cache.labelled_words import word_features, word_table
from zoo.engine.cache.passes import Passes
from zoo.engine.loading.loader import Kind, Loaders
from zoo.engine.options.epochs import Epoch
from zoo.engine.rundir.run_context import RunContext
from zoo.errors import DiskFullError, ZooError
from zoo.models.task_model import TaskModel
from zoo.tuning.partial_forward import Boundary

log = logging.getLogger("zoo")


class FrozenPrefix:
    """Pooled features, or activations at the boundary, of the tables of a run in its current phase.

    Args:
        model: The model.
        loaders: The loaders of the run.
        passes: Runs the frozen prefix.
        context: The conditions of the run.
        obstacle: Why activations must not be stored, for the log; empty where they may be.
        share: Whether other runs of this process may use the same outputs.
        lasting: Whether pooled features are also written to files for other processes; they are always read from there.

    Attributes:
        computed: Samples of which pooled features were computed, and not found.
        boundary: Where stored activations enter the model, or None.
        reason: Why the frozen prefix of this phase is computed every epoch though it could be stored; else empty.
    """

    def __init__(
        self,
        model: TaskModel,
        loaders: Loaders,
        passes: Passes,
        context: RunContext,
        *,
        obstacle: str = "",
        share: bool = True,
        lasting: bool = False,
    ) -> None:
        self._model, self._loaders, self._passes, self._context, self._obstacle = model, loaders, passes, context, obstacle
        # A user's own augmentation has no key. Several ranks would have to agree on hits.
        alike = context.ranks.count == 1 and context.own.augment is None
        self._keys = Keys(model, context) if share and alike else None
        self._features: dict[str, list[Tensor]] = {}
        self._activations: dict[str, ActivationCache] = {}
        self._outputs: dict[str, Any] = {}
        self._epoch: Epoch | None = None
        self.boundary: Boundary | EndBoundary | None = None
        self.reason = ""
        self.computed = 0
        self._lasting = lasting

    def open_phase(self, epoch: Epoch) -> None:
        """Drop the outputs of another phase, in which the backbone may have trained, and look for the boundary of this one."""
        if self._epoch is not None and epoch.index == self._epoch.index:
            return
        self._features.clear()
        self._activations.clear()
        self._outputs.clear()
        self._loaders.close()
        self._epoch, self.boundary, self.reason = epoch, None, ""
        if self._keys is not None:
            self._keys.model_changed()
        if not epoch.cached or epoch.pooled:
            return
        if self._obstacle:
            self._disable_cache(epoch, self._obstacle)
            return
        with self._context.ranks.together(), self._context.autocast():  # the precision of training
            found = find_boundary(self._model, epoch.frozen, self._loaders.first())
        reasons = list(filter(None, self._context.ranks.gather(found if isinstance(found, str) else "")))
        if isinstance(found, str) or reasons:
            self._disable_cache(epoch, reasons[0])
        else:
            self.boundary = found

    def features(self, table: str, *, views: int = 1) -> list[Tensor]:
        """Return the pooled features of each view of a table, computed at the first call.

        Args:
            table: Name of the table.
            views: Number of fixed views; all but the first are augmented.
        """
        if table not in self._features:
            self._features[table] = [self._pooled(kind, view) for view, kind in enumerate(_kinds(table, views))]
        return self._features[table]

    def augmented_features(self, table: str, views: int) -> list[Tensor]:
        """Return the pooled features of augmented views of a table."""
        return [self._pooled(Kind(table, augmented=True), view) for view in range(1, views + 1)]

    def words(self, table: str) -> tuple[Tensor, Table]:
        """Return the features of the words of a table that the loss counts, computed in one pass, and the table of these words."""
        samples = self._loaders.fresh(Kind(table)).samples
        assert isinstance(samples, TextSamples), "only sentences given as words have words"
        kind, rows = self._shared(Kind(table))
        loader = self._loaders.fresh(kind)
        assert isinstance(loader.samples, TextSamples), "the whole of a table reads what the table reads"
        key = self._key("words", kind, 0)
        features: Tensor | None = self._stored(key)
        if features is None:
            self._model.eval()
            forward = self._context.cast(self._model.backbone)
            outputs = self._passes.run(forward, loader, len(loader.samples), "features", words=True)
            features = word_features(outputs, loader.samples)
            self._store(key, features, features.nbytes)
        if rows is not None:
            numbers = [len(loader.samples.words(index)) for index in range(len(loader.samples))]
            parts = torch.split(features, numbers)
            features = torch.cat([parts[row] for row in rows])
        return features, word_table(samples)

    def activations(self, table: str, *, views: int = 1) -> ActivationCache | None:
        """Return the activations at the boundary, computed at the first call; None where the prefix runs in every epoch.

        Args:
            table: Name of the table.
            views: Number of fixed views; all but the first are augmented.
        """
        if self.boundary is None or self._epoch is None or table in self._activations:
            return self._activations.get(table)
        kinds = _kinds(table, views)
        cache = ActivationCache(self.boundary, self._loaders.lasting(kinds[0]), self._context)
        try:
            for view, kind in enumerate(kinds):
                self._enter(cache, kind, view)
        except OSError as error:
            if isinstance(error, ZooError) and not isinstance(error, DiskFullError):
                raise  # unreadable samples end the run; only a full store disables caching
            self._disable_cache(self._epoch, str(error))
            self.boundary = None
            self._activations.clear()  # training must not start at the boundary where validation cannot
            return None
        self._activations[table] = cache
        return cache

    def sizes(self, table: str, lengths: npt.NDArray[np.int64]) -> list[int]:
        """Return the bytes of each tensor that is stored of one view of a table, had it samples of these lengths."""
        if table in self._features:
            features = self._features[table][0]
            return [len(lengths) * features[0].numel() * features.itemsize]
        return self._activations[table].sizes(lengths) if table in self._activations else []

    def _pooled(self, kind: Kind, view: int) -> Tensor:
        kind, rows = self._shared(kind)
        key = self._key("pooled", kind, view)
        found: Tensor | None = self._stored(key)
        features = read_features(key) if found is None else found
        if features is None:
            self._model.eval()
            loader, count = self._loaders.fresh(kind), len(self._loaders.table(kind))
            outputs = self._passes.run(self._context.cast(self._model.embed_batch), loader, count, "features", view=view)
            features = torch.from_numpy(outputs)
            self.computed += count
            key = self._key("pooled", kind, view)  # the batch size may be smaller now
            if self._lasting:
                write_features(key, features)
        if found is None:
            self._store(key, features, features.nbytes)
        return features if rows is None else features[torch.from_numpy(rows)]

    def _enter(self, cache: ActivationCache, kind: Kind, view: int) -> None:
        """Add one view to the activations of a table: stored ones, or those of a pass over it or over the whole of which it is a part."""
        assert self.boundary is not None, "activations are stored at a boundary"
        whole, rows = self._shared(kind)
        if cache.adopt(self._stored(self._key("entered", whole, view)), rows):
            return
        filled = cache if rows is None else ActivationCache(self.boundary, self._loaders.fresh(whole), self._context)
        self._fill(filled, whole, view)
        self._store(self._key("entered", whole, view), *filled.newest)  # its batch size may be smaller now
        if rows is not None:
            cache.adopt(filled.newest[0], rows)

    def _shared(self, kind: Kind) -> tuple[Kind, npt.NDArray[np.int64] | None]:
        """Return the kind whose outputs are stored for a kind, and its rows in it; None for all of them.

        A part of a table, such as a fold, takes its rows from the outputs of the whole, so they do not depend on the part.
        """
        origin = self._loaders.table(kind).origin
        if origin is None or kind.augmented or not self._key("", kind._replace(whole=True), 0):
            return kind, None
        return kind._replace(whole=True), origin.rows

    def _stored(self, key: str) -> Any:
        """Return what is stored under a key in this phase or in this process, or None."""
        return self._outputs.get(key) if key in self._outputs else feature_memo().get(key)

    def _store(self, key: str, value: Any, size: int) -> None:
        feature_memo().put(key, value, size)
        if key:  # for the other parts of the same table, if it is too large to outlive the phase
            self._outputs[key] = value

    def _fill(self, cache: ActivationCache, kind: Kind, view: int) -> None:
        self._model.eval()
        self._context.progress.begin("frozen part", len(self._loaders.table(kind)))
        stored = cache.nbytes + sum(other.nbytes for other in self._activations.values())
        with self._context.autocast():
            loader = self._loaders.fresh(kind)
            each = self._passes.after_batch
            self._passes.in_batches_that_fit(lambda size: cache.fill(loader, view, batch_size=size, stored=stored, each=each))

    def _disable_cache(self, epoch: Epoch, reason: str) -> None:
        self.reason = reason
        log.info("the frozen prefix of phase %r is computed every epoch: %s", epoch.phase.name, reason)

    def _key(self, what: str, kind: Kind, view: int) -> str:
        """Return the key of outputs in the cache of this process; empty if they are not shared."""
        return "" if self._keys is None else self._keys.of(what, self._loaders.table(kind), kind, view, batch_size=self._passes.batch_size)


def _kinds(table: str, views: int) -> list[Kind]:
    return [Kind(table, augmented=view > 0) for view in range(views)]
