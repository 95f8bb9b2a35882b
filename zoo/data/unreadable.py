"""Samples of which a batch leaves out those that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zoo.data.dataset import Batch, Sample, Samples, not_finite
from zoo.errors import ZooError


class ReadableSamples(Samples):
    """Samples whose batches name those that cannot be read, with the reason, in ``Batch.failed``.

    Where none of a batch can be read, its inputs are empty.
    """

    def at(self, epoch: int, index: int) -> Any:
        """Return the sample, or the reason in place of its tensor."""
        try:
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
