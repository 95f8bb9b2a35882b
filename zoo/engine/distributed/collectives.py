"""Collectives of a run: tensors on their device, plain data on the CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from torch import Tensor
from torch import distributed as dist

from zoo.engine.distributed.heartbeat import Heartbeat
from zoo.errors import RankError

T = TypeVar("T")
Each = TypeVar("Each", bound=Tensor)
BUCKET_BYTES = 25 * 2**20  # at which a bucket is closed


class Collectives:
    """Collectives over the ranks of one run; with a single rank they return their input.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of ranks.
        timeout: Seconds that a rank waits for the others.
    """

    def __init__(self, rank: int, count: int, timeout: float, store: Any = None) -> None:
        self.rank, self.count, self.timeout = rank, count, timeout
        # gloo, so that decisions do not wait for a GPU.
        self._group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout)) if count > 1 else None
        self._heartbeat = Heartbeat(store, rank, count, timeout) if count > 1 else None
        self._over = False  # a rank has failed; no more collectives

    def add(self, tensors: Sequence[Tensor]) -> None:
        """All-reduce tensors by sum, in place, on their device."""
        if self._group is None:
            return
        for bucket in buckets(tensors):
            if len(bucket) == 1 and bucket[0].is_contiguous():  # a large tensor is not copied, to save memory
                with self._watched():
                    dist.all_reduce(bucket[0])
                continue
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with self._watched():
                dist.all_reduce(flat)
            for tensor, values in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(values.view_as(tensor))

    def average(self, tensors: Sequence[Tensor], share: float) -> None:
        """Average floating-point tensors over all ranks, in place; other tensors are equal on all ranks.

        Args:
            tensors: The tensors.
            share: Weight of this rank; the weights of all ranks sum to 1.
        """
        floating = [tensor for tensor in tensors if tensor.is_floating_point()]
        if self._group is not None and floating:
            torch._foreach_mul_(floating, share)
            self.add(floating)

    def start_adding(self, tensor: Tensor) -> Any:
        """Start an asynchronous all-reduce of a tensor, in place; return the handle for ``wait``."""
        with self._watched(counted=False):
            return dist.all_reduce(tensor, async_op=True)

    def wait(self, work: Any) -> None:
        """Wait for an asynchronous collective; on a GPU the current stream waits.

        Not counted by the heartbeat, because ranks wait for different numbers of collectives in the middle of a backward.
        """
        with self._watched(counted=False):
            work.wait()

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """Return, for each flag, whether any rank has it set."""
        every = self._gathered(torch.tensor(flags, dtype=torch.int64)) if flags else torch.empty(0)
        return every.view(self.count, -1).any(0).tolist()

    def fill(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Sum an array over all ranks, in place; each rank has filled its own rows and left the others zero."""
        if self._group is not None:
            with self._watched():
                dist.all_reduce(torch.from_numpy(values), group=self._group)
        return values

    def of_first(self, values: Tensor) -> Tensor:
        """Return the values of the first rank, on the device and in the type of this rank's; those of others are passed over."""
        if self._group is None:
            return values
        sent = values.detach().float() if values.element_size() < 4 and values.is_floating_point() else values.detach()
        return torch.from_numpy(self.fill((sent if self.rank == 0 else torch.zeros_like(sent)).cpu().numpy().copy())).to(values)

    def total(self, value: float) -> float:
        """Return the sum of a number over all ranks, equal on each."""
        return value if self._group is None else sum(self.gather(value))

    def gather(self, value: T) -> list[T]:
        """Return the plain data of every rank, in order; sent as JSON, because unpickling could run code from the network."""
        if self._group is None:
            return [value]
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = self._gathered(torch.tensor([len(content)])).tolist()
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(content)] = content
        rows = self._gathered(padded).view(self.count, -1)
        return [json.loads(bytes(row[:length].numpy())) for row, length in zip(rows, lengths, strict=True)]

    def rows_of_all(self, rows: Tensor, sizes: Sequence[int], buffers: list[Tensor]) -> Tensor:
        """Return the rows of all ranks in order, on their device.

        Args:
            rows: Rows of this rank.
            sizes: Numbers of rows of all ranks.
            buffers: One for each rank and one more, each of the largest number of rows.
        """
        *every, padded = buffers
        padded[: len(rows)] = rows.detach()
        with self._watched():
            dist.all_gather(every, padded)
        return torch.cat([part[:size] for part, size in zip(every, sizes, strict=True)])

    def _gathered(self, values: Tensor) -> Tensor:
        every = [torch.empty_like(values) for _ in range(self.count)]
        with self._watched():
            dist.all_gather(every, values, group=self._group)
        return torch.cat(every)

    @contextmanager
    def _watched(self, *, counted: bool = True) -> Iterator[None]:
        """Beat before a collective, and raise ``RankError`` with the likely cause if it fails."""
        assert self._heartbeat is not None, "a single process has no collectives"
        try:
            if counted:
                self._heartbeat.beat()
            yield
        except torch.OutOfMemoryError:
            raise  # this rank's own error
        except RuntimeError as error:
            self._over = True
            raise RankError(self._heartbeat.cause(error)) from error


def abort_groups(group: Any) -> None:
    """Destroy all process groups without waiting: ``group`` and the default one."""
    if not dist.is_initialized():
        return
    if dist.get_backend() == "nccl":
        # destroy_process_group would wait for the collectives on the GPU, which a dead rank never joins.
        with suppress(Exception):
            dist.destroy_process_group(group)
            dist.distributed_c10d._abort_process_group()
    else:
        dist.destroy_process_group()


def buckets(tensors: Sequence[Each], size: int = BUCKET_BYTES) -> Iterator[list[Each]]:
    """Yield the tensors in buckets of one dtype and device, each closed once it has ``size`` bytes."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Each]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for kind in kinds.values():
        bucket: list[Each] = []
        filled = 0
        for tensor in kind:
            bucket.append(tensor)
            filled += tensor.nbytes
            if filled >= size:
                yield bucket
                bucket, filled = [], 0
        if bucket:
            yield bucket
