"""Several processes that train one model: who computes what, and how all of them come to the same decision.

Every process makes the same plan and the same batches, takes its part of each batch, and adds its gradients to those of the
others. Gradients are exchanged after the backward and not during it: only then does one process that ran out of memory,
met a broken file or was told to stop not leave the others waiting in a collective that it never enters.

A single process is the case of one, in which nothing is sent.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from torch import Tensor
from torch import distributed as dist

from zoo.engine.signals import Stopped
from zoo.errors import RankError

T = TypeVar("T")
BUCKET = 25 * 2**20  # bytes of gradients that are sent together


class Status(IntEnum):
    """What became of a step on one rank; of several, the highest decides."""

    FINE = 0
    STOP = 1
    OUT_OF_MEMORY = 2
    FAILED = 3


class Ranks:
    """The processes of one run.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of processes.
        timeout: Seconds that one waits for the others.
    """

    def __init__(self, rank: int = 0, count: int = 1, timeout: float = 600.0) -> None:
        self.rank, self.count, self.timeout = rank, count, timeout
        # On the CPU, so that a decision never waits for a GPU.
        self._group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout)) if count > 1 else None
        self._beats = 0

    @property
    def main(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    def part(self, batch: Sequence[int]) -> list[int]:
        """Return this rank's part of a batch; none where there are fewer samples than ranks."""
        base, more = divmod(len(batch), self.count)
        start = self.rank * base + min(self.rank, more)
        return list(batch[start : start + base + (self.rank < more)])

    def agree(self, status: Status, message: str = "") -> Status:
        """Return the highest status of all ranks.

        Raises:
            RankError: If another rank failed, with its message, or does not answer.
        """
        return self.agree_and_add(status, 0.0, message)[0]

    def agree_and_add(self, status: Status, value: Tensor | float, message: str = "") -> tuple[Status, Tensor | float]:
        """Return the highest status of all ranks, and the sum of a value over them.

        Raises:
            RankError: If another rank failed, with its message, or does not answer.
        """
        if self._group is None:
            return status, value
        every = self._gathered(torch.tensor([[float(status), float(value)]], dtype=torch.float64))
        statuses = [Status(int(each)) for each in every[:, 0].tolist()]
        if Status.FAILED in statuses:
            messages = self.gather(message if status == Status.FAILED else "")
            if status != Status.FAILED:
                first = statuses.index(Status.FAILED)
                raise RankError(f"rank {first} of {self.count} failed, so all stop: {messages[first]}")
        return max(statuses), float(every[:, 1].sum())

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run something that every rank does by itself; what one of them meets, all of them hear at the end.

        Raises:
            Stopped: If any of them was told to stop.
            RankError: If another one failed.
        """
        if self._group is None:
            yield
            return
        try:
            yield
        except Stopped:
            self.agree(Status.STOP)
            raise
        except RankError:
            raise
        except Exception as error:
            self.agree(Status.FAILED, str(error))
            raise
        if self.agree(Status.FINE) == Status.STOP:
            raise Stopped

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors over all ranks, in place, where they are."""
        if self._group is None:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with self._watched():
                dist.all_reduce(flat)
            for tensor, values in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(values.view_as(tensor))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Average tensors of floating-point numbers over all ranks, in place; others are equal everywhere already."""
        if self._group is not None:
            floating = [tensor for tensor in tensors if tensor.is_floating_point()]
            self.add(floating)
            for tensor in floating:
                tensor /= self.count

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Add up the gradients of parameters over all ranks, in place; one that no rank has stays None."""
        if self._group is None:
            return
        has = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int64)
        anywhere = self._gathered(has).view(self.count, -1).any(0).tolist() if len(parameters) else []
        used = [parameter for parameter, wanted in zip(parameters, anywhere, strict=True) if wanted]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.add([parameter.grad for parameter in used if parameter.grad is not None])

    def fill(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Add up an array over all ranks, in place; each has filled its own rows, and the others are zero."""
        if self._group is not None:
            with self._watched():
                dist.all_reduce(torch.from_numpy(values), group=self._group)
        return values

    def total(self, value: float) -> float:
        """Return the sum of a number over all ranks."""
        return value if self._group is None else sum(self.gather(value))

    def gather(self, value: T) -> list[T]:
        """Return the value of every rank, in order; plain data, sent as JSON, because nothing that comes over a network runs code."""
        if self._group is None:
            return [value]
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = self._gathered(torch.tensor([len(content)])).tolist()
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(content)] = content
        rows = self._gathered(padded).view(self.count, -1)
        return [json.loads(bytes(row[:length].numpy())) for row, length in zip(rows, lengths, strict=True)]

    def _gathered(self, values: Tensor) -> Tensor:
        every = [torch.empty_like(values) for _ in range(self.count)]
        with self._watched():
            dist.all_gather(every, values, group=self._group)
        return torch.cat(every)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Count the collectives in the launcher's store, so that a silent rank can be named by the others."""
        self._beats += 1
        store = _store()
        store.set(f"zoo/beat/{self.rank}", str(self._beats))
        try:
            yield
        except RuntimeError as error:
            raise RankError(self._silent(store)) from error

    def _silent(self, store: Any) -> str:
        time.sleep(0.2)  # the others may be between their count and their collective
        beats = {rank: _beat(store, rank) for rank in range(self.count)}
        behind = [rank for rank, beat in beats.items() if rank != self.rank and beat < self._beats]
        who = f"rank {', '.join(map(str, behind))}" if behind else "another rank"
        return (
            f"{who} of {self.count} no longer answers (it died, or took more than {self.timeout:g} s); all stop. "
            "What it said last stands in its own output. Go on from the last checkpoint with resume=True"
        )


def launched() -> int:
    """Return how many processes a launcher started for this training; 1 without one."""
    return max(1, int(os.environ.get("WORLD_SIZE") or 1))


def _store() -> Any:
    from torch.distributed.distributed_c10d import _get_default_store  # the store that the launcher keeps; torch names no other way

    return _get_default_store()


def _beat(store: Any, rank: int) -> int:
    key = f"zoo/beat/{rank}"
    try:
        return int(store.get(key)) if store.check([key]) else 0
    except RuntimeError:  # the store went with the rank that kept it
        return 0


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    for kind in kinds.values():
        bucket: list[Tensor] = []
        for tensor in kind:
            bucket.append(tensor)
            if sum(each.nbytes for each in bucket) >= BUCKET:
                yield bucket
                bucket = []
        if bucket:
            yield bucket
