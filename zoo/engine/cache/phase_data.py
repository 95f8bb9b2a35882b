"""What a phase trains on: samples through the whole model, or what a frozen prefix gave through what is behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.data.dataset import Inputs
from zoo.data.open import Table
from zoo.engine.cache.activation_cache import Entering, Kept, Whole, find_boundary
from zoo.engine.cache.feature_memo import SHELF, Keys
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.inference.batched_inference import Outputs, in_batches_that_fit, run_all, run_words
from zoo.engine.loading.loader import Loaded, Loader, Loaders, to_device
from zoo.engine.loading.order import Batch
from zoo.engine.loading.stream import Batches, BatchSource, Forward, Stream
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import Epoch
from zoo.engine.runtime.progress import Progress
from zoo.errors import DiskFullError, ZooError
from zoo.models.task_model import TaskModel
from zoo.tuning import Regularizers
from zoo.tuning.partial_forward import Boundary

log = logging.getLogger("zoo")
T = TypeVar("T")


class Streams:
    """The streams of one run; what is frozen is computed once per phase and view.

    Args:
        model: The model.
        train: Training data with encoded targets.
        valid: Validation data, or None.
        config: The resolved configuration.
        accelerator: Device and precision.
        layout: Memory format of the inputs.
        progress: Where long passes are shown.
        poll: Called after every batch of a pass; may raise to stop.
        folder: Where large caches may go.
        ranks: The processes that train together.
        whole: Why the model is not entered in the middle, see ``why_whole``; empty where it may be.
        share: Whether what is frozen is shared with other runs of this process.

    Attributes:
        split: By how much memory cuts the batches of a pass.
        reason: Why the frozen prefix of the present phase is computed every epoch though it could be kept; else empty.
    """

    def __init__(
        self,
        model: TaskModel,
        train: Table,
        valid: Table | None,
        config: Config,
        accelerator: Any,
        *,
        layout: torch.memory_format,
        progress: Progress,
        poll: Callable[[], None],
        folder: Path,
        ranks: Ranks,
        whole: str = "",
        share: bool = True,
    ) -> None:
        self._model, self._config, self._accelerator, self._progress, self._poll = model, config, accelerator, progress, poll
        self._loaders = Loaders(model, train, valid, config, accelerator.device, layout=layout)
        self._keys = Keys(model, config, accelerator) if share and ranks.count == 1 else None
        self._features: dict[str, list[Tensor]] = {}
        self._kept: dict[str, Kept] = {}
        self._boundary: Boundary | Whole | None = None
        self._phase, self._folder, self._ranks, self._whole = -1, folder, ranks, whole
        self.reason, self.split = "", 1

    def train(self, epoch: Epoch) -> Stream:
        """Return what ``epoch`` trains on; the model's frozen prefix must be set already. May leave the model in eval mode."""
        self._open_phase(epoch)
        if not epoch.pooled:
            loader = self._entered(epoch, "train") or self._loaders.kept("augmented" if epoch.augment else "plain")
            viewed = epoch.cached and self._config.views > 1 and not isinstance(loader, Kept)
            return Stream(self._views if viewed else loader.batches, self.cast(self._forward), loader.samples.lengths)
        if "train" not in self._features:
            kinds = [("plain", 0), *(("augmented", view) for view in range(1, self._config.views))]
            self._features["train"] = [self._extract(kind, view) for kind, view in kinds]
        targets = torch.from_numpy(np.asarray(self._loaders.table("plain").targets))
        return Stream(cached_batches(self._features["train"], targets, self._accelerator.device), self.cast(self._model.pooled_logits))

    def _views(self, order: Sequence[Batch], epoch: int) -> Iterable[Loaded]:
        """Yield batches of the views that were to be kept: what a run trains on must not hang on whether there is room for them."""
        view = epoch % self._config.views
        return self._loaders.kept("augmented" if view else "plain").batches(order, view)

    def close(self) -> None:
        """End the workers of every loader."""
        self._loaders.close()

    def plain(self) -> Loader:
        """Return the loader of the training samples as they are, not augmented."""
        return self._loaders.kept("plain")

    def inputs(self, order: Sequence[Batch]) -> Iterator[Inputs]:
        """Yield the inputs of batches of training samples as they are, not augmented."""
        for x, _, _ in self.plain().batches(order):
            yield x
            self._poll()
            self._ranks.heed()

    def valid_logits(self, epoch: Epoch | None) -> Outputs:
        """Return the model's logits for all validation samples, ``(samples, classes)``; for words as ``run_words`` does.

        Without an epoch nothing that was kept from a frozen prefix is used.
        """
        if epoch is not None:
            self._open_phase(epoch)
        if epoch is None or not epoch.pooled:
            kept = None if epoch is None else self._entered(epoch, "valid")
            loader = kept or self._loaders.kept("valid")
            return self._pass(self.cast(self._forward), loader, len(self._loaders.table("valid")), "valid")
        if "valid" not in self._features:
            self._features["valid"] = [self._extract("valid", 0)]
        return self._pooled_logits(self._features["valid"][0])

    def _pooled_logits(self, features: Tensor) -> Outputs:
        head = self.cast(self._model.pooled_logits)

        def run(size: int) -> Outputs:
            with torch.no_grad():
                parts = [head(part.to(self._accelerator.device)).float().cpu() for part in torch.split(features, size)]
            return np.asarray(torch.cat(parts).numpy())

        return in_batches_that_fit(run, max(self._size, len(features)), halved=lambda: None)

    def _open_phase(self, epoch: Epoch) -> None:
        # Another phase may have trained the backbone in between.
        if epoch.index == self._phase:
            return
        self._features.clear()
        self._kept.clear()
        self.close()
        self._phase, self._boundary, self.reason = epoch.index, None, ""
        if self._keys is not None:
            self._keys.model_changed()
        if epoch.cached and not epoch.pooled and self._whole:
            self._not_kept(epoch, self._whole)
        elif epoch.cached and not epoch.pooled:
            with self._ranks.together(), self._accelerator.autocast():  # as it will be used
                found = find_boundary(self._model, epoch.frozen, self._loaders.kept("plain"))
            reasons = list(filter(None, self._ranks.gather(found if isinstance(found, str) else "")))
            if isinstance(found, str) or reasons:
                self._not_kept(epoch, reasons[0])
            else:
                self._boundary = found

    def _entered(self, epoch: Epoch, part: str) -> Kept | None:
        """Return what entered the boundary, computed at the first call; None where the model runs as a whole."""
        if self._boundary is None or part in self._kept:
            return self._kept.get(part)
        views = [("plain" if part == "train" else "valid", 0)]
        views += [("augmented", view) for view in range(1, self._config.views)] if part == "train" else []
        kept = Kept(self._boundary, self._loaders.kept(views[0][0]), self._accelerator.device)
        try:
            for kind, view in views:
                if not kept.adopt(SHELF.get(self._key("entered", kind, view))):
                    self._fill(kept, kind, view)
                    SHELF.put(self._key("entered", kind, view), *kept.newest)  # memory may have made the batches smaller
        except OSError as error:
            if isinstance(error, ZooError) and not isinstance(error, DiskFullError):
                raise  # a sample that cannot be read is no reason to compute it every epoch
            self._not_kept(epoch, str(error))
            self._boundary = None
            self._kept.clear()  # training must not enter where validation cannot
            return None
        self._kept[part] = kept
        return kept

    def sizes(self, part: str, lengths: npt.NDArray[np.int64]) -> list[int]:
        """Return the bytes of each tensor that is kept of one view of ``train`` or ``valid``, had it samples of these lengths."""
        if part in self._features:
            features = self._features[part][0]
            return [len(lengths) * features[0].numel() * features.itemsize]
        return self._kept[part].sizes(lengths) if part in self._kept else []

    def _not_kept(self, epoch: Epoch, reason: str) -> None:
        self.reason = reason
        log.info("the frozen prefix of phase %r is computed every epoch: %s", epoch.phase.name, reason)

    def _fill(self, kept: Kept, kind: str, view: int) -> None:
        self._model.eval()
        self._progress.begin("frozen part", len(self._loaders.table(kind)))
        held = kept.nbytes + sum(other.nbytes for other in self._kept.values())
        with self._accelerator.autocast():
            loader = self._loaders.fresh(kind)
            options: dict[str, Any] = {
                "held": held,
                "limit": int(self._config.cache_gb * 2**30),
                "folder": self._folder,
                "ranks": self._ranks,
                "each": self._after_batch,
            }
            self._fitting(lambda size: kept.fill(loader, view, batch_size=size, **options))

    def _forward(self, x: Any) -> Tensor:
        """Return the logits of a batch of inputs, or of a batch that enters in the middle."""
        if not isinstance(x, Entering):
            return self._model(x)  # type: ignore[no-any-return]  # of a module
        assert self._boundary is not None, "nothing was kept"
        logits: Tensor = self._model.logits(self._boundary.replay(x.x, x.kept), x.x)
        return logits

    def _extract(self, kind: str, view: int) -> Tensor:
        features: Tensor | None = SHELF.get(self._key("pooled", kind, view))
        if features is None:
            self._model.eval()
            loader, number = self._loaders.fresh(kind), len(self._loaders.table(kind))
            features = torch.from_numpy(self._pass(self.cast(self._model.embed_batch), loader, number, "features", view))
            SHELF.put(self._key("pooled", kind, view), features, features.nbytes)
        return features

    def _key(self, what: str, kind: str, view: int) -> str:
        """Return what identifies values of the frozen prefix among the runs of this process; nothing if they are not shared."""
        return "" if self._keys is None else self._keys.of(what, self._loaders.table(kind), kind, view, batch_size=self._size)

    def _pass(self, forward: Forward, loader: BatchSource, count: int, what: str, view: int = 0) -> Outputs:
        self._progress.begin(what, count)
        each = self._after_batch
        if what == "valid" and self._model.task == "token-classification":
            return self._fitting(lambda size: run_words(forward, loader, count, size, each=each, ranks=self._ranks))
        return self._fitting(lambda size: run_all(forward, loader, count, size, each=each, epoch=view, ranks=self._ranks))

    @property
    def _size(self) -> int:
        """Samples of a batch without gradients, of which more fit into memory than in training."""
        return max(1, 2 * -(-self._config.samples // self._ranks.count) // self.split)

    def _fitting(self, run: Callable[[int], T]) -> T:
        return in_batches_that_fit(run, self._size, halved=self._halve if self._ranks.count == 1 else None)

    def _halve(self) -> None:
        self.split *= 2

    def _after_batch(self, done: int) -> None:
        if self._progress.due:
            self._progress.step(done)
        with self._ranks.together() if self._ranks.lockstep else nullcontext():
            self._poll()
        self._ranks.heed()

    def cast(self, function: Forward) -> Forward:
        """Return the function under the run's precision."""

        def forward(x: Inputs) -> Tensor:
            with self._accelerator.autocast():
                return function(x)

        return forward


def why_whole(config: Config, penalties: Regularizers | None) -> str:
    """Return why a model is not entered in the middle though what is frozen could be kept; empty where it may be."""
    if config.compile:
        return "compiled code is not entered in the middle"
    return "a penalty (delta) needs the inputs" if penalties and penalties.needs_inputs else ""


def cached_batches(views: Sequence[Tensor], targets: Tensor, device: torch.device) -> Batches:
    """Return batches of cached features; epoch e takes view e modulo their number."""

    def batches(order: Sequence[Batch], epoch: int) -> Iterator[Loaded]:
        features = views[epoch % len(views)]
        for indices in order:
            rows = torch.tensor(indices)
            yield to_device(features[rows], device), to_device(targets[rows], device), indices

    return batches
