"""Several processes that train one model: who computes what, and how all of them come to the same decision.

Every process makes the same plan and the same batches, takes its part of each batch, and adds its gradients to those of the
others. What is decided about a step is decided after its backward, by all of them: so one process that ran out of memory, met a
broken file or was told to stop does not leave the others waiting in a collective that it never enters.

A single process is the case of one, in which nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from zoo.engine.distributed.collectives import Collectives, abort_groups
from zoo.engine.distributed.heartbeat import failed
from zoo.engine.runtime.signals import Stopped
from zoo.errors import DiskFullError, RankError, ZooError

T = TypeVar("T")


class Status(IntEnum):
    """What became of a step on one rank; of several, the highest decides."""

    FINE = 0
    SAVE = 1
    STOP = 2
    DECLINED = 3
    OUT_OF_MEMORY = 4
    NOT_FINITE = 5
    FAILED = 6


class Agreed(Exception):  # noqa: N818  # control flow inside the engine, never shown
    """Raised inside a forward where another rank could not go on; all ranks know the verdict already."""

    def __init__(self, verdict: Status) -> None:
        super().__init__(verdict.name)
        self.verdict = verdict


class Ranks(Collectives):
    """The processes of one run.

    Attributes:
        lockstep: Whether every forward and backward needs all of them, because the model is sharded. Gradients are then added up
            by the backward itself, and a process that fails cannot wait for the others to agree.
    """

    def __init__(self, rank: int = 0, count: int = 1, timeout: float = 600.0) -> None:
        super().__init__(rank, count, timeout)
        self.lockstep = False
        self._settled: Any = None  # the error that is known to all ranks
        self._parts, self._open = 0, list[int]()  # of what every rank does by itself: how many there were, and which it is in

    @property
    def main(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    def part(self, batch: Sequence[int]) -> list[int]:
        """Return this rank's part of a batch; none where there are fewer samples than ranks."""
        base, more = divmod(len(batch), self.count)
        start = self.rank * base + min(self.rank, more)
        return list(batch[start : start + base + (self.rank < more)])

    def share(self, batches: list[T]) -> tuple[list[T], bool]:
        """Return the batches that this rank computes, and whether the others compute the rest; all of them where there are too few."""
        if self.count == 1 or len(batches) < self.count:
            return batches, False
        mine = batches[self.rank :: self.count]
        short = self.lockstep and len(mine) * self.count < len(batches)
        return mine + mine[-1:] * short, True

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
            self._over = True
            if status != Status.FAILED:
                first = statuses.index(Status.FAILED)
                raise RankError(failed(first, self.count, messages[first]))
        return max(statuses), float(every[:, 1].sum())

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks, in the order of the ranks; gradients flow to this rank's own rows.

        To be called in a forward, equally often by all ranks.

        Raises:
            Agreed: If another rank ran out of memory, or met values that are not finite, before it came to this call.
            RankError: If another rank failed.
        """
        if self._group is None:
            return rows
        verdict = self.agree(Status.FINE)
        if verdict >= Status.OUT_OF_MEMORY:
            raise Agreed(verdict)
        return cast(Tensor, _GatheredRows.apply(rows, self))

    @contextmanager
    def together(self, forgiven: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Run a part that every rank does by itself; errors on one rank are raised on all at its end.

        May be nested: an error that all ranks raise at an inner part passes the outer ones as it is.

        Args:
            forgiven: Errors that end this part and not the run: all ranks raise them.

        Raises:
            Stopped: If any of them was told to stop.
            RankError: If another one failed.
        """
        if self._group is None:
            yield
            return
        caught: Exception | None = None
        self._parts += 1
        place = self._parts
        self._open.append(place)
        try:
            yield
        except Exception as error:
            if self._over or self._is_settled(error):
                raise
            if self.lockstep and not isinstance(error, Stopped):
                raise (self.lost(error) or error) from error.__cause__
            caught = error
            assert self._heartbeat is not None, "a single process has no heartbeat"
            self._heartbeat.call(place)
        finally:
            self._open.remove(place)
        status = _status_of(caught, forgiven)
        verdict = self.agree(status, described(caught) if caught else "")
        if verdict == Status.DECLINED:
            mine = str(caught) if status == Status.DECLINED else ""  # a rank that was told to stop finds out at the next poll
            messages = self.gather(mine)
            caught = caught if mine else forgiven[0](next(filter(None, messages)))
        elif verdict == Status.STOP:
            caught = Stopped()
        if caught is not None:
            self._settled = caught
            raise caught

    def heed(self) -> None:
        """Look in the middle of a long part whether one of the others waits at its end already, with an error or a signal.

        Raises:
            Stopped: If so; what it was is told at the end of the part.
        """
        if self._open and not self.lockstep and self._heartbeat is not None and self._heartbeat.called(self._open):
            raise Stopped

    def leave(self, error: BaseException) -> None:
        """Report why this process ends the run, where the others do not know, and leave the process groups, so that none waits for it."""
        if self._heartbeat is None or not (self._over or isinstance(error, RankError) or not self._is_settled(error)):
            return
        if not (self._over or isinstance(error, RankError)):
            self._heartbeat.report_failure(described(error))
        group, self._over, self._group = self._group, True, None
        abort_groups(group)  # closes what the others are waiting at

    def lost(self, error: Exception) -> RankError | None:
        """Return the error to raise in place of one that only tells that another process has gone; None where it tells more."""
        if self._heartbeat is None or not (isinstance(error, RuntimeError) and any(name in str(error) for name in ("gloo", "NCCL"))):
            return None
        first = str(error).strip().partition("\n")[0]
        return RankError(f"{self._heartbeat.cause()} (the collective failed with: {first})")

    def known(self, error: T) -> T:
        """Return an error that all ranks raise at the same time, so that none has to tell the others."""
        self._settled = error
        return error

    def _is_settled(self, error: BaseException) -> bool:
        """Tell whether all ranks know of an error, or of what it was made from."""
        if isinstance(error, RankError):
            return True
        known: BaseException | None = error
        while known is not None:
            if known is self._settled:
                return True
            known = known.__cause__
        return False


class _GatheredRows(torch.autograd.Function):
    """Rows of all ranks, whose gradient goes to this rank's own: the others send theirs the same way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        sizes = ranks.gather(len(rows))
        ctx.start, ctx.size = sum(sizes[: ranks.rank]), len(rows)
        return ranks.rows_of_all(rows, sizes)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return gradients[0][ctx.start : ctx.start + ctx.size], None


def described(error: BaseException) -> str:
    """Return what is told of an error: of our own the message, of others the kind as well."""
    return str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {error}".removesuffix(": ")


def _status_of(error: Exception | None, forgiven: tuple[type[Exception], ...]) -> Status:
    if error is None:
        return Status.FINE
    if isinstance(error, Stopped):
        return Status.STOP
    # A broken file is an OSError too, and ends the run wherever it is met.
    broken = isinstance(error, ZooError) and not isinstance(error, DiskFullError)
    return Status.DECLINED if isinstance(error, forgiven) and not broken else Status.FAILED
