"""Unreadable samples: dropped once before training, or left out of their batch."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from zoo.data.dataset import Batch, Sample, Samples, not_finite
from zoo.data.images.bands import PICTURE_CHANNELS, read_bands
from zoo.data.images.decode import decode
from zoo.data.images.dicom import WindowLevel
from zoo.data.images.volumes import read_volume
from zoo.data.table import PIXELS, Table
from zoo.data.unreadable_input import Unreadable
from zoo.errors import CorruptInputError, DataError, OptionError, ZooError, count, fault_list

log = logging.getLogger("zoo")


def drop_corrupt(table: Table, max_corrupt: float = 0.01, window: WindowLevel | None = None, *, channels: int = 0) -> Table:
    """Try to decode all rows and return those that can be; the others are logged once.

    Called once, before training, so that every epoch, rank and resumed run has the same samples.

    Raises:
        DataError: If more than the share ``max_corrupt`` cannot be decoded, or a class would lose its last sample.
        OptionError: If ``max_corrupt`` is outside [0, 1].
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
            except BaseException:  # such as Ctrl-C: do not wait for the rest
                pool.shutdown(cancel_futures=True)
                raise
    else:
        causes = [_cause(table, row, window, channels) for row in rows]
    bad = [row for row, cause in enumerate(causes) if cause]
    if not bad:
        return table
    faults = [causes[row] for row in bad[:4]] + ([f"… and {len(bad) - 4} more"] if len(bad) > 4 else [])
    share = f"{count(len(bad), 'sample')} of {len(table)} ({len(bad) / len(table):.1%}) cannot be decoded"
    if len(bad) > max_corrupt * len(table):
        remedy = f"Remove them, or raise max_corrupt, here to {math.ceil(100 * len(bad) / len(table)) / 100:g}."
        raise DataError(fault_list(f"{table.source}: {share}, more than max_corrupt={max_corrupt:g}", faults, remedy))
    good = table.select(np.setdiff1d(np.arange(len(table)), bad))
    before, after = table.counts(), good.counts()
    lost = [repr(name) for name, number in before.items() if number and not after[name]]
    if lost:
        raise DataError(fault_list(f"{table.source}: {share}; nothing is left of {', '.join(lost)}", faults))
    log.warning(fault_list(f"{table.source}: {share} and are left out", faults))
    return good


def _cause(table: Table, row: int, window: WindowLevel | None, channels: int) -> str:
    try:
        source = table.inputs[row]
        if not isinstance(source, torch.Tensor) or not source.is_floating_point():
            if table.reads == "volume":
                read_volume(source, channels)
            elif channels not in (0, *PICTURE_CHANNELS):
                read_bands(source, channels, name=f"row {row}", window=window)
            else:  # the smallest decoded size is faster, and still reads the file to its end
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


class ReadableSamples(Samples):
    """Samples whose batches name those that cannot be read, with the reason, in ``Batch.failed``.

    Where none of a batch can be read, its inputs are empty.
    """

    def at(self, epoch: int, index: int) -> Any:
        """Return the sample, or the reason in place of its tensor."""
        try:
            if isinstance(self.table.inputs, list) and isinstance(given := self.table.inputs[index], Unreadable):
                return given.reason, None, index
            x, target, _ = super().at(epoch, index)
        except ZooError as error:
            return _reason(error.__cause__ or error), None, index
        return ("it has values that are not finite" if not_finite(x[None]) else x), target, index

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Stack the samples that could be read."""
        good = [sample for sample in samples if not isinstance(sample[0], str)]
        failed = {index: str(reason) for reason, _, index in samples if isinstance(reason, str)}
        batch = super().collate(good) if good else Batch(torch.empty(0), torch.empty(0), [])
        return batch._replace(failed=failed)


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"
