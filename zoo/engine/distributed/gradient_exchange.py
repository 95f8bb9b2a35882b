"""All-reduce of gradients in buckets, overlapped with the backward.

The buckets of the last layers are sent first, because their gradients are ready first. Every rank sends all buckets of a step in
the same order. A rank that fails sends zeros for the remaining ones, so that no rank waits for it; whether the sums are used is
agreed on afterwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.distributed.collectives import BUCKET_BYTES, buckets
from zoo.engine.distributed.ranks import Ranks
from zoo.errors import TrainingError

_MIN_BYTES, _BUCKET_COUNT = 2**20, 8  # bytes of the smallest bucket, and the number of buckets of a small network


@dataclass(frozen=True)
class _InFlight:
    """A bucket in flight.

    Attributes:
        work: Handle of the collective.
        values: The tensor that is reduced in place.
        parameters: The parameters whose flattened gradients are in ``values``; empty for a tensor that is not a gradient.
    """

    work: Any
    values: Tensor
    parameters: Sequence[nn.Parameter]


class GradientExchange:
    """Sums the gradients of a step over all ranks; does nothing on a single one.

    The buckets hold the same parameters in every step, because the order in which a ring adds up depends on the position in a bucket.
    Each is freed once it is summed; where the backward is faster than the network, they take as much memory as the gradients.

    Args:
        ranks: The ranks of the run.
        parameters: The trainable parameters, the same on all ranks.

    Attributes:
        sent_count: Number of buckets of this step that were sent.
        missing: Number of parameters without a gradient on this rank after its backward.
    """

    def __init__(self, ranks: Ranks, parameters: Sequence[nn.Parameter]) -> None:
        self._ranks, self._parameters = ranks, parameters
        self._active = ranks.count > 1 and not ranks.lockstep  # the backward of a sharded model sums its gradients itself
        size = min(BUCKET_BYTES, max(_MIN_BYTES, sum(parameter.nbytes for parameter in parameters) // _BUCKET_COUNT))
        self._buckets = list(buckets(list(reversed(parameters)), size)) if self._active else []
        self._bucket_of = {id(parameter): number for number, bucket in enumerate(self._buckets) for parameter in bucket}
        self._order = list(range(len(self._buckets)))  # in which the buckets are sent
        self._awaited: list[set[int]] = []  # per bucket, ids of the parameters whose gradient is not ready
        self._pending: deque[_InFlight] = deque()
        self._has: list[bool] = []
        self.sent_count = self.missing = 0

    def begin(self) -> None:
        """Start a step, or retry it."""
        self._awaited = [{id(parameter) for parameter in bucket} for bucket in self._buckets]
        self._pending.clear()
        self.sent_count = 0

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send buckets as their gradients get ready; to be entered for the last backward of the step on this rank."""
        sent = self._parameters if self._active else ()
        handles = [parameter.register_post_accumulate_grad_hook(self._ready) for parameter in sent]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def send_rest(self) -> None:
        """Send the remaining buckets."""
        if not self._active:
            return
        self._has = [parameter.grad is not None for parameter in self._parameters]
        self.missing = self._has.count(False)
        while self.sent_count < len(self._buckets):
            self._send()

    def send_zeros(self) -> None:
        """Send zeros for the remaining buckets, on a rank that knows that the step is retried or fails; its gradients are dropped."""
        if self._active:
            for parameter in self._parameters:
                parameter.grad = None
            self.send_rest()

    def send_values(self, tensors: Sequence[Tensor]) -> None:
        """Start to sum further tensors in place, after all buckets; the sums are complete after ``finish``."""
        if self._active:
            self._pending.extend(_InFlight(self._ranks.start_adding(tensor), tensor, ()) for tensor in tensors)

    def finish(self, total_missing: float) -> None:
        """Wait for the sums and copy them into ``.grad``, which stays None for a parameter without a gradient on any rank.

        Args:
            total_missing: The sum of ``missing`` over all ranks.
        """
        if not self._active:
            return
        anywhere = self._ranks.any_of(self._has) if total_missing else self._has
        while self._pending:
            self._copy_back(self._pending.popleft())
        unused = [parameter for parameter, has in zip(self._parameters, anywhere, strict=True) if not has]
        for parameter in unused:
            parameter.grad = None
        # No bucket can be sent before one that waits for a gradient that never comes.
        last = {self._bucket_of[id(parameter)] for parameter in unused}
        self._order = sorted(range(len(self._buckets)), key=lambda number: number in last)

    def discard(self) -> None:
        """Wait for the sums of a step that is retried, and drop them."""
        while self._pending:
            self._ranks.wait(self._pending.popleft().work)

    def _ready(self, parameter: Tensor) -> None:
        bucket = self._bucket_of[id(parameter)]
        if bucket in self._order[: self.sent_count]:
            raise TrainingError(
                f"a parameter of shape {tuple(parameter.shape)} got its gradient twice in one backward, after it was sent to the other "
                "processes; a checkpoint of torch.utils.checkpoint inside the network needs use_reentrant=False"
            )
        self._awaited[bucket].discard(id(parameter))
        while self.sent_count < len(self._order) and not self._awaited[self._order[self.sent_count]]:
            self._send()
        while self._pending and self._pending[0].work.is_completed():  # frees its memory
            self._copy_back(self._pending.popleft())

    def _send(self) -> None:
        bucket = self._buckets[self._order[self.sent_count]]
        # Always a copy: autograd may still read the storage of a gradient, or share it with another one.
        flat = torch.cat([_gradient(parameter).reshape(-1) for parameter in bucket])
        self._pending.append(_InFlight(self._ranks.start_adding(flat), flat, bucket))
        self.sent_count += 1

    def _copy_back(self, bucket: _InFlight) -> None:
        self._ranks.wait(bucket.work)
        pieces = torch.split(bucket.values, [parameter.numel() for parameter in bucket.parameters]) if bucket.parameters else ()
        for parameter, values in zip(bucket.parameters, pieces, strict=True):
            layout = parameter if parameter.grad is None else parameter.grad
            summed = values.view_as(parameter)
            # The bucket's own memory where it has the layout of the gradient.
            parameter.grad = summed if layout.is_contiguous() else torch.empty_like(layout, requires_grad=False).copy_(summed)


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter, requires_grad=False) if parameter.grad is None else parameter.grad
