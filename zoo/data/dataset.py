"""Dataset for training and evaluation: sample i of epoch e depends on (seed, e, i) only."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from zoo.data.images.transforms import Transform
from zoo.data.table import Table
from zoo.errors import CorruptInputError, DataError, OwnPartError, ZooError, examples

Sample: TypeAlias = "tuple[torch.Tensor, Any, int]"
ModelInputs: TypeAlias = "torch.Tensor | Mapping[str, torch.Tensor]"
"""Inputs of a network: pixels or voxels ``(batch, …)``, or the tensors of a tokenizer by name."""


class Batch(NamedTuple):
    """Samples of one source, stacked.

    Attributes:
        x: Inputs, or cached activations that enter the backbone in their place.
        y: Targets, one row per sample.
        indices: Rows of the samples in the table.
        views: Inputs of further views of the same samples, each augmented anew; empty for a single view.
        frozen: Outputs of the objective's frozen modules for these samples by name, or None.
        failed: Rows of samples that could not be read and were left out, with the reason.
    """

    x: Any
    y: torch.Tensor
    indices: list[int]
    views: tuple[Any, ...] = ()
    frozen: Mapping[str, torch.Tensor] | None = None
    failed: Mapping[int, str] = {}


_FORKED = (
    "CUDA cannot be used in a forked loader process; keep what datasets and augmentations return on the CPU, load in the main process "
    "(workers=0), or call torch.multiprocessing.set_start_method('spawn') first"
)


class Samples(Dataset[Sample]):
    """Transformed samples ``(x, target, index)`` of a table.

    The epoch is in shared memory, so that running loader workers see it change.

    Attributes:
        table: The rows.
        transform: Called with an input and a ``random.Random`` seeded by (seed, epoch, index).
        seed: Seed of all randomness.
        lengths: Always None: samples are not grouped by length.
    """

    lengths: None = None

    def __init__(self, table: Table, transform: Transform, seed: int = 0) -> None:
        """Make the dataset of a table.

        Args:
            table: The rows.
            transform: Function of an input and a ``random.Random`` to a tensor.
            seed: Seed of all randomness.
        """
        self.table, self.transform, self.seed = table, transform, seed
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]  # torch has no types here

    def __len__(self) -> int:
        return len(self.table)

    def set_epoch(self, epoch: int) -> None:
        """Use the random numbers of another epoch; call it before the loader is iterated."""
        self._epoch[0] = epoch

    @property
    def epoch(self) -> int:
        """The epoch whose random numbers are in use."""
        return int(self._epoch[0])

    def __getitem__(self, index: int) -> Sample:
        """Return sample ``index`` of the current epoch; see ``at``."""
        return self.at(self.epoch, index)

    def at(self, epoch: int, index: int) -> Sample:
        """Return the tensor, the target (int, float32 array, or None if unlabelled) and the index.

        Raises:
            CorruptInputError: If the sample cannot be decoded, naming it.
            DataError: If its shape is not the one that the model takes.
        """
        rng = random.Random(f"{self.seed}/{epoch}/{index}")
        try:
            x = self.transform(self.table.inputs[index], rng)
        except Exception as error:
            raise _of_sample(error, f"sample {index} of {self.table.source}") from error
        targets = self.table.targets
        target = None if targets is None else targets[index]
        return x, int(target) if isinstance(target, np.int64) else target, index

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Stack a list of samples.

        Raises:
            CorruptInputError: If an input has values that are not finite, naming all such samples of the batch: a forward in
                train mode would add them to the statistics of BatchNorm.
            DataError: If a target has values that are not finite.
        """
        inputs, targets, indices = zip(*samples, strict=True)
        if targets[0] is None:  # unlabelled: prediction needs none, and None cannot be stacked
            targets = (-1,) * len(inputs)
        x, y = torch.stack(inputs), torch.from_numpy(np.stack([np.asarray(target) for target in targets]))
        self._refuse(not_finite(x), indices, CorruptInputError("has values that are not finite; clean or remove it"))
        known = y.where(~y.isnan(), 0.0) if y.ndim == 2 and self.table.classes else y  # NaN is a missing label
        self._refuse(not_finite(known), indices, DataError("has a target that is not finite; correct or remove it"))
        return Batch(x, y, list(indices))

    def _refuse(self, rows: Sequence[int], indices: Sequence[int], error: ZooError) -> None:
        if rows:
            names = examples([f"{indices[row]} ({self.table.name_of(indices[row])})" for row in rows])
            number = "sample" if len(rows) == 1 else f"{len(rows)} samples:"
            raise _of_sample(error, f"{number} {names} of {self.table.source}")


def not_finite(batch: torch.Tensor) -> list[int]:
    """Return the rows of a batch that hold NaN or infinity."""
    # The sum reads the values once; it also overflows for very large values, so rows are checked only if it is not finite.
    if not batch.is_floating_point() or math.isfinite(batch.sum().item()):
        return []
    return [row for row, sample in enumerate(batch) if not torch.isfinite(sample).all()]


class _FromWorker(Exception):  # noqa: N818  # base of the two classes below
    """An error of a loader worker, with its message only.

    torch raises a worker's error again as ``type(text)``, where the text is a traceback whose last line is
    ``module.Type: message``.
    """

    def __init__(self, text: str) -> None:
        mark = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(text.rpartition(mark)[2].rstrip("\n"))


class WorkerInputError(_FromWorker, CorruptInputError):
    """A sample that a loader worker could not decode."""


class WorkerDataError(_FromWorker, DataError):
    """A sample that a loader worker could not use."""


class WorkerOwnPartError(_FromWorker, OwnPartError):
    """A function of the user's own that raised in a loader worker."""


def _of_sample(error: Exception, where: str) -> ZooError:
    """Return an error that names the sample; in a worker, one whose message reaches the main process unchanged."""
    if "CUDA in forked subprocess" in str(error):  # torch raises a plain RuntimeError
        error = DataError(_FORKED)
    if isinstance(error, OwnPartError):
        return (OwnPartError if get_worker_info() is None else WorkerOwnPartError)(f"{where}: {error}")
    unusable = isinstance(error, ZooError) and not isinstance(error, CorruptInputError)
    message = f"{where}: {error}" if isinstance(error, ZooError) else f"{where} cannot be read: {type(error).__name__}: {error}"
    if get_worker_info() is None:
        return DataError(message) if unusable else CorruptInputError(message)
    return WorkerDataError(message) if unusable else WorkerInputError(message)
