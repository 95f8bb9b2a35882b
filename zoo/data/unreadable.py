"""Unreadable samples: dropped once before training, or left out of their batch."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch

from zoo.data.dataset import Batch, Sample, Samples, not_finite
from zoo.data.images.bands import PICTURE_CHANNELS, read_bands
from zoo.data.images.decode import decode
from zoo.data.images.scans.dicom import WindowLevel
from zoo.data.images.scans.volumes import read_volume
from zoo.data.table import PIXELS, Table
from zoo.data.unreadable_input import Unreadable
from zoo.errors import CorruptInputError, DataError, OptionError, ZooError, count, examples, fault_list, first_faults

log = logging.getLogger("zoo")
SECONDS = 10.0  # for which further files are looked at after one that cannot be read
_LOOKED_AT = 64  # files at once
_NAMED = re.compile(r"('[^']*'|row \d+) (.*)", re.DOTALL)  # a cause: the culprit, then the reason


def drop_corrupt(
    table: Table,
    valid: Table | None = None,
    *,
    max_corrupt: float | None = None,
    window: WindowLevel | None = None,
    channels: int = 0,
) -> tuple[Table, Table | None]:
    """Try to decode all rows and return those that can be; the others are logged once.

    Called once, before training, so that every epoch, rank and resumed run has the same samples. Validation data that were held out
    of the training data are counted together with them, so that the seed of the split does not decide; others count alone.

    Args:
        table: The training data.
        valid: The validation data.
        max_corrupt: Share of the samples that may be left out, in [0, 1]; None for a hundredth, and in small sets more: see ``allowed``.
        window: Window of CT values.
        channels: Channels of the images that the model takes; 0 for any.

    Raises:
        DataError: If more than the share cannot be decoded, a class would lose its last training sample, or nothing would be left.
        OptionError: If ``max_corrupt`` is outside [0, 1].
    """
    if max_corrupt is not None and not 0 <= max_corrupt <= 1:
        raise OptionError(f"max_corrupt is {max_corrupt}; it is a share of the samples, in [0, 1]")
    causes = [_causes(one, window, channels) for one in (table, valid) if one is not None]
    if valid is None:
        _check_share([table], causes, max_corrupt)
        return _without(table, causes[0]), None
    if valid.held_out:
        _check_share([table, valid], causes, max_corrupt)
    else:
        _check_share([table], causes[:1], max_corrupt)
        _check_share([valid], causes[1:], max_corrupt)
    return _without(table, causes[0]), _without(valid, causes[1])


def allowed(samples: int, max_corrupt: float | None = None) -> int:
    """Return how many of a number of samples may be left out.

    Args:
        samples: Their number.
        max_corrupt: The share, in [0, 1]. None allows a hundredth, at least one sample, and up to five as long as they are no more
            than a tenth: 1 of 10, 4 of 49, 5 of 100, 10 of 1,000.
    """
    if max_corrupt is not None:
        return math.floor(max_corrupt * samples + 1e-9)  # 0.29 * 100 is below 29
    return max(samples // 100, min(5, max(1, samples // 10)))


def all_corrupt(tables: Sequence[Table], *, window: WindowLevel | None = None, channels: int = 0, seconds: float = SECONDS) -> str:
    """Return how many files of some tables cannot be decoded, with examples; empty where at most one is.

    Args:
        tables: The tables; only those of files are looked at.
        window: Window of CT values.
        channels: Channels of the images that the model takes; 0 for any.
        seconds: After this time no further file is looked at.
    """
    until, seen, causes = time.monotonic() + seconds, 0, list[str]()
    for table in tables:
        if table.reads not in PIXELS or not isinstance(table.inputs, list) or not all(isinstance(item, str) for item in table.inputs):
            continue
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(table), _LOOKED_AT):
                if time.monotonic() > until:
                    break
                rows = range(start, min(start + _LOOKED_AT, len(table)))
                causes += filter(None, pool.map(partial(_cause, table, window=window, channels=channels), rows))
                seen += len(rows)
    if len(causes) < 2:
        return ""
    total = sum(map(len, tables))
    number = f"{len(causes)} of {'' if seen == total else 'the first '}{count(seen, 'sample')} cannot be read"
    named = [_NAMED.fullmatch(cause) for cause in causes]
    reasons = {match[2] if match else "" for match in named}
    if len(reasons) == 1 and (reason := reasons.pop()):
        return f"{number}: {examples([match[1] for match in named if match])}; each {reason}"
    return f"{number}: {examples(causes)}"


def _causes(table: Table, window: WindowLevel | None, channels: int) -> dict[int, str]:
    """Return why rows cannot be decoded, by row."""
    if table.reads not in PIXELS:
        return {}
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
    return {row: cause for row, cause in enumerate(causes) if cause}


def _check_share(tables: Sequence[Table], causes: Sequence[Mapping[int, str]], max_corrupt: float | None) -> None:
    """Check that no more rows of some tables are bad than may be left out."""
    bad, samples = sum(map(len, causes)), sum(map(len, tables))
    if bad > allowed(samples, max_corrupt):
        faults = first_faults([cause for found in causes for cause in found.values()])
        limit = f"max_corrupt={max_corrupt:g}" if max_corrupt is not None else f"the default allows ({allowed(samples)})"
        remedy = f"Remove them, or set max_corrupt, here to {math.ceil(100 * bad / samples) / 100:g} or more."
        raise DataError(fault_list(f"{tables[0].source}: {_share(bad, samples)}, more than {limit}", faults, remedy))


def _without(table: Table, causes: Mapping[int, str]) -> Table:
    """Return the rows that can be decoded, and log the others."""
    if not causes:
        return table
    faults, share = first_faults(list(causes.values())), _share(len(causes), len(table))
    good = table.select(np.setdiff1d(np.arange(len(table)), list(causes)))
    before, after = table.counts(), good.counts()
    lost = [repr(name) for name, number in before.items() if number and not after[name]]
    if (lost and not table.held_out) or not len(good):
        of = f" of {examples(lost)}" if len(good) else ""
        raise DataError(fault_list(f"{table.source}: {share}; nothing is left{of}", faults))
    log.warning(fault_list(f"{table.source}: {share} and {'is' if len(causes) == 1 else 'are'} left out", faults))
    return good


def _share(bad: int, samples: int) -> str:
    return f"{count(bad, 'sample')} of {samples} ({bad / samples:.1%}) cannot be decoded"


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
