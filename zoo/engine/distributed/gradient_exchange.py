"""Gradients added up over the processes while the backward still computes others.

Gradients are sent in buckets, the last layers' first, because theirs are ready first. Every process sends every bucket of a step
exactly once and in the same order: one that fails sends zeros for the rest, so that nobody waits for it, and all agree afterwards
whether the sums are taken or thrown away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.distributed.collectives import BUCKET
from zoo.engine.distributed.ranks import Ranks
from zoo.errors import TrainingError

_SMALLEST, _BUCKETS = 2**20, 8  # bytes that are worth a message of their own, and how many there are of a small network


@dataclass(frozen=True)
class _Sent:
    """A bucket under way.

    Attributes:
        work: Torch's handle of the collective.
        values: What is added up, in place.
        parameters: Whose gradients these are, one after another; empty where ``values`` is in its place already.
    """

    work: Any
    values: Tensor
    parameters: Sequence[nn.Parameter]


class GradientExchange:
    """Adds up the gradients of one step over all processes; with a single one nothing is done.

    Args:
        ranks: The processes of the run.
        parameters: What trains, the same on all processes.

    Attributes:
        sent: Buckets of this step that are under way or through.
        missing: Parameters for which this process had no gradient when its backward was over.
    """

    def __init__(self, ranks: Ranks, parameters: Sequence[nn.Parameter]) -> None:
        self._ranks, self._parameters = ranks, parameters
        self._active = ranks.count > 1 and not ranks.lockstep  # the backward of a sharded model adds up by itself
        self._buckets: list[list[nn.Parameter]] = []
        self._place: dict[int, int] = {}  # by id of a parameter, its bucket
        self._unused: list[nn.Parameter] = []  # in the last step, by no process
        self._awaited: list[set[int]] = []  # per bucket, the parameters whose gradient is not there yet
        self._pending: deque[_Sent] = deque()
        self.sent = 0
        self._has: list[bool] = []
        self.missing = 0
        if self._active:
            self._lay_out()

    def begin(self) -> None:
        """Start a step, or start it again."""
        self._awaited = [{id(parameter) for parameter in bucket} for bucket in self._buckets]
        self._pending.clear()
        self.sent = 0

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send gradients as they get ready; to be entered for the last backward of the step on this process."""
        sent = [parameter for bucket in self._buckets for parameter in bucket]
        handles = [parameter.register_post_accumulate_grad_hook(self._ready) for parameter in sent]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def send_rest(self, more: Sequence[Tensor], *, keep: bool) -> None:
        """Send what the backward did not come to.

        Args:
            more: Further tensors to be added up, in place.
            keep: False where this process knows already that the step is taken again or ends: zeros are sent for the rest.
        """
        if not self._active:
            return
        if not keep:
            for parameter in self._parameters:
                parameter.grad = None
        self._has = [parameter.grad is not None for parameter in self._parameters]
        self.missing = self._has.count(False)
        while self.sent < len(self._buckets):
            self._send()
        for tensor in more:
            self._pending.append(_Sent(self._ranks.start_adding(tensor), tensor, ()))

    def finish(self, missing: float) -> None:
        """Wait for the sums and put them where the gradients are; a gradient that no process has stays None.

        Args:
            missing: The sum of ``missing`` over all processes.
        """
        if not self._active:
            return
        anywhere = self._ranks.any_of(self._has) if missing else self._has
        while self._pending:
            self._put_back(self._pending.popleft())
        for parameter, wanted in zip(self._parameters, anywhere, strict=True):
            if not wanted:
                parameter.grad = None
        unused = [parameter for parameter, wanted in zip(self._parameters, anywhere, strict=True) if not wanted]
        if list(map(id, unused)) != list(map(id, self._unused)):
            self._unused = unused
            self._lay_out()

    def discard(self) -> None:
        """Wait for the sums of a step that is taken again, and drop them."""
        while self._pending:
            self._ranks.wait(self._pending.popleft().work)

    def _lay_out(self) -> None:
        """Cut the parameters into buckets, from last to first; those that nobody used go last, because nothing must wait for them."""
        unused = set(map(id, self._unused))
        used = [parameter for parameter in reversed(self._parameters) if id(parameter) not in unused]
        self._buckets = [*_buckets(used), *_buckets(self._unused)]
        self._place = {id(parameter): number for number, bucket in enumerate(self._buckets) for parameter in bucket}

    def _ready(self, parameter: Tensor) -> None:
        place = self._place[id(parameter)]
        if place < self.sent:
            raise TrainingError(
                f"a parameter of shape {tuple(parameter.shape)} got its gradient twice in one backward, after it was sent to the other "
                "processes; a checkpoint of torch.utils.checkpoint inside the network needs use_reentrant=False"
            )
        self._awaited[place].discard(id(parameter))
        while self.sent < len(self._buckets) and not self._awaited[self.sent]:
            self._send()
        while self._pending and self._pending[0].work.is_completed():  # frees its memory
            self._put_back(self._pending.popleft())

    def _send(self) -> None:
        bucket = self._buckets[self.sent]
        # Always a copy: autograd may still read the storage of a gradient, or share it with another one.
        flat = torch.cat([_gradient(parameter).reshape(-1) for parameter in bucket])
        self._pending.append(_Sent(self._ranks.start_adding(flat), flat, bucket))
        self.sent += 1

    def _put_back(self, sent: _Sent) -> None:
        self._ranks.wait(sent.work)
        pieces = torch.split(sent.values, [parameter.numel() for parameter in sent.parameters]) if sent.parameters else ()
        for parameter, values in zip(sent.parameters, pieces, strict=True):
            layout = parameter if parameter.grad is None else parameter.grad
            parameter.grad = torch.empty_like(layout, requires_grad=False).copy_(values.view_as(parameter))


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter, requires_grad=False) if parameter.grad is None else parameter.grad


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yield the parameters in their order, cut into buckets of one kind and device."""
    size = min(BUCKET, max(_SMALLEST, sum(parameter.nbytes for parameter in parameters) // _BUCKETS))
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and (bucket[0].dtype, bucket[0].device) != (parameter.dtype, parameter.device):
            yield bucket
            bucket = []
        bucket.append(parameter)
        if sum(each.nbytes for each in bucket) >= size:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
