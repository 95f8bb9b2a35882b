"""The dataset that training and evaluation read: sample i of epoch e depends on (seed, e, i) and on nothing else."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from zoo.data.images import decode
from zoo.data.table import PIXELS, Table
from zoo.data.transforms import Transform
from zoo.data.volumes import read_volume
from zoo.errors import CorruptInputError, DataError, OptionError, ZooError, count, examples, fault_list

Sample: TypeAlias = "tuple[torch.Tensor, Any, int]"
ModelInputs: TypeAlias = "torch.Tensor | Mapping[str, torch.Tensor]"
"""What a network is given: pixels or voxels ``(batch, …)``, or the tensors of a tokenizer by name."""


class Batch(NamedTuple):
    """Samples of one source, stacked.

    Attributes:
        x: Inputs, or stored activations that enter the backbone in their place.
        y: Targets, one row per sample.
        indices: Rows of the table that the samples are.
        views: Inputs of further views of the same samples, each augmented anew; empty where a source has one view.
        frozen: Outputs of the objective's frozen modules for these samples by name, or None.
    """

    x: Any
    y: torch.Tensor
    indices: list[int]
    views: tuple[Any, ...] = ()
    frozen: Mapping[str, torch.Tensor] | None = None


log = logging.getLogger(__name__)
_FORKED = (
    "CUDA cannot be used in a forked loader process; keep what datasets and augmentations return on the CPU, load in the main process "
    "(workers=0), or call torch.multiprocessing.set_start_method('spawn') first"
)


class Samples(Dataset[Sample]):
    """Transformed samples ``(x, target, index)`` of a table.

    Epochs reach loader workers that are already running through shared memory.

    Attributes:
        table: The rows that are served.
        transform: Called with an input and a ``random.Random`` seeded by (seed, epoch, index).
        seed: Decides all randomness.
        lengths: What batches are grouped by, or None: all samples are of one size.
    """

    lengths: None = None

    def __init__(self, table: Table, transform: Transform, seed: int = 0) -> None:
        """Serve a table.

        Args:
            table: What to serve.
            transform: From an input and a ``random.Random`` to a tensor.
            seed: Decides all randomness.
        """
        self.table, self.transform, self.seed = table, transform, seed
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]  # torch has no types here

    def __len__(self) -> int:
        return len(self.table)

    def set_epoch(self, epoch: int) -> None:
        """Draw other random numbers from now on; call it before the loader is iterated."""
        self._epoch[0] = epoch

    @property
    def epoch(self) -> int:
        """The epoch whose random numbers are drawn."""
        return int(self._epoch[0])

    def __getitem__(self, index: int) -> Sample:
        """Return sample ``index`` of the current epoch; see ``at``."""
        return self.at(self.epoch, index)

    def at(self, epoch: int, index: int) -> Sample:
        """Return the tensor, the target (int, float32 array, or None where unlabelled) and the index.

        Raises:
            CorruptInputError: If the sample cannot be decoded, naming it.
            DataError: If it has another shape than the model takes.
        """
        rng = random.Random(f"{self.seed}/{epoch}/{index}")
        try:
            x = self.transform(self.table.inputs[index], rng)
        except Exception as error:
            raise _told(error, f"sample {index} of {self.table.source}") from error
        targets = self.table.targets
        target = None if targets is None else targets[index]
        return x, int(target) if isinstance(target, np.int64) else target, index

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Stack a list of samples.

        Raises:
            CorruptInputError: If an input has values that are not finite, naming all such samples of the batch: a forward in
                train mode would already put them into the statistics of BatchNorm.
            DataError: If a target has.
        """
        inputs, targets, indices = zip(*samples, strict=True)
        if targets[0] is None:  # unlabelled: prediction needs none, and None cannot be stacked
            targets = (-1,) * len(inputs)
        x, y = torch.stack(inputs), torch.from_numpy(np.stack([np.asarray(target) for target in targets]))
        self._refuse(not_finite(x), indices, CorruptInputError("has values that are not finite; clean or remove it"))
        self._refuse(not_finite(y), indices, DataError("has a target that is not finite; correct or remove it"))
        return Batch(x, y, list(indices))

    def _refuse(self, rows: Sequence[int], indices: Sequence[int], error: ZooError) -> None:
        if rows:
            names = examples([f"{indices[row]} ({self.table.name_of(indices[row])})" for row in rows])
            number = "sample" if len(rows) == 1 else f"{len(rows)} samples:"
            raise _told(error, f"{number} {names} of {self.table.source}")


def not_finite(batch: torch.Tensor) -> list[int]:
    """Return the rows of a batch that hold NaN or infinity."""
    # The sum tells it for the price of reading once; it is infinite for very large values too, so it is not the last word.
    if not batch.is_floating_point() or math.isfinite(batch.sum().item()):
        return []
    return [row for row, sample in enumerate(batch) if not torch.isfinite(sample).all()]


def drop_corrupt(table: Table, max_corrupt: float = 0.01, window: tuple[float, float] | None = None, *, channels: int = 0) -> Table:
    """Return the rows that can be decoded, after trying all of them; what is left out is logged once.

    It is done once, before training: so every epoch, process and resumed run has the same samples.

    Raises:
        DataError: If more than the share ``max_corrupt`` cannot be decoded, or a class would lose its last sample.
    """
    if not 0 <= max_corrupt <= 1:
        raise OptionError(f"max_corrupt is {max_corrupt}; it is a share of the samples, in [0, 1]")
    if table.reads not in PIXELS:
        return table
    rows = range(len(table))
    if isinstance(table.inputs, list):
        # Decoders release the interpreter lock; datasets of the user's own may not be safe in threads.
        with ThreadPoolExecutor() as pool:
            try:
                causes = list(pool.map(lambda row: _cause(table, row, window, channels), rows))
            except BaseException:  # such as Ctrl-C: the rest is not waited for
                pool.shutdown(cancel_futures=True)
                raise
    else:
        causes = [_cause(table, row, window, channels) for row in rows]
    bad = [row for row, cause in enumerate(causes) if cause]
    if not bad:
        return table
    told = [causes[row] for row in bad[:4]] + ([f"… and {len(bad) - 4} more"] if len(bad) > 4 else [])
    share = f"{count(len(bad), 'sample')} of {len(table)} ({len(bad) / len(table):.1%}) cannot be decoded"
    if len(bad) > max_corrupt * len(table):
        raise DataError(
            fault_list(f"{table.source}: {share}, more than max_corrupt={max_corrupt:g}", told, "Remove them, or raise max_corrupt.")
        )
    kept = table.select(np.setdiff1d(np.arange(len(table)), bad))
    before, after = table.counts(), kept.counts()
    lost = [repr(name) for name, number in before.items() if number and not after[name]]
    if lost:
        raise DataError(fault_list(f"{table.source}: {share}; nothing is left of {', '.join(lost)}", told))
    log.warning(fault_list(f"{table.source}: {share} and are left out", told))
    return kept


def _cause(table: Table, row: int, window: tuple[float, float] | None, channels: int) -> str:
    try:
        source = table.inputs[row]
        if not isinstance(source, torch.Tensor) or not source.is_floating_point():
            if table.reads == "volume":
                read_volume(source, channels)
            else:  # the smallest decoded size reads the whole file all the same, so it finds every fault, sooner
                decode(source, name=f"row {row}", at_least=1, window=window)
        elif not torch.isfinite(source).all():
            return f"row {row} has values that are not finite"
    except CorruptInputError as error:
        return str(error)
    except ZooError:
        raise
    except Exception as error:  # a dataset of the user's own may raise anything
        return f"row {row} cannot be read: {type(error).__name__}: {error}"
    return ""


class _FromWorker(Exception):  # noqa: N818  # a part of the two below
    """Keeps the message of an error that crosses from a loader worker.

    torch raises a worker's error again as ``type(text)``, where the text is a whole traceback whose last line is
    ``module.Type: message``.
    """

    def __init__(self, text: str) -> None:
        mark = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(text.rpartition(mark)[2].rstrip("\n"))


class WorkerInputError(_FromWorker, CorruptInputError):
    """A sample that a loader worker could not decode."""


class WorkerDataError(_FromWorker, DataError):
    """A sample that a loader worker refused."""


def _told(error: Exception, where: str) -> ZooError:
    """Return an error that names the sample; one that a worker raises keeps its message on the way to the main process."""
    if "CUDA in forked subprocess" in str(error):  # torch has no class for it
        error = DataError(_FORKED)
    refused = isinstance(error, ZooError) and not isinstance(error, CorruptInputError)
    message = f"{where}: {error}" if isinstance(error, ZooError) else f"{where} cannot be read: {type(error).__name__}: {error}"
    if get_worker_info() is None:
        return DataError(message) if refused else CorruptInputError(message)
    return WorkerDataError(message) if refused else WorkerInputError(message)
