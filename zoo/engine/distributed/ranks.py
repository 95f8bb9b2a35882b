"""The ranks of a run: their shares of a batch, and decisions that all ranks take together.

Every rank lays out the same epochs and batches, computes its share of each batch, and all-reduces its gradients. Decisions
about a step are taken by all ranks after its backward: a rank that ran out of memory, read a broken file or received a signal
therefore does not leave the others waiting in a collective.

A single process is a run of one rank, without communication.
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
from zoo.errors import DiskFullError, InterruptedRunError, RankError, ZooError

T = TypeVar("T")


class Status(IntEnum):
    """Outcome of a step on one rank; the highest of all ranks decides."""

    FINE = 0
    SAVE = 1
    STOP = 2
    DECLINED = 3
    OUT_OF_MEMORY = 4
    NOT_FINITE = 5
    FAILED = 6


class Agreed(Exception):  # noqa: N818  # control flow inside the engine, never shown
    """Raised inside a forward if another rank could not go on; all ranks have agreed on the verdict.

    Attributes:
        verdict: The highest status of all ranks.
        error: What to raise in the end if the verdict is ``FAILED``, else None.
    """

    def __init__(self, verdict: Status, error: RankError | None) -> None:
        super().__init__(verdict.name)
        self.verdict, self.error = verdict, error


class Ranks(Collectives):
    """The ranks of one run.

    Attributes:
        lockstep: Whether every forward and backward has collectives, because the model is sharded. The backward then reduces
            the gradients, and a rank that fails cannot wait for the others to agree.
    """

    def __init__(self, rank: int = 0, count: int = 1, timeout: float = 600.0, store: Any = None) -> None:
        super().__init__(rank, count, timeout, store)
        self.lockstep = False
        self._known_error: Any = None  # the error that is known to all ranks
        self._sections, self._open = 0, list[int]()  # sections of ``together``: their number so far, and the open ones

    @property
    def main(self) -> bool:
        """Whether this rank writes the files of the run."""
        return self.rank == 0

    def part(self, batch: Sequence[int]) -> list[int]:
        """Return this rank's samples of a batch; may be empty if there are fewer samples than ranks."""
        base, more = divmod(len(batch), self.count)
        start = self.rank * base + min(self.rank, more)
        return list(batch[start : start + base + (self.rank < more)])

    def share(self, batches: list[T]) -> tuple[list[T], bool]:
        """Return the batches of this rank, and whether the others compute the rest; with fewer batches than ranks, all of them."""
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
        verdict, total, failure = self._gathered_verdict(status, float(value), message)
        if failure is not None:
            raise failure
        return verdict, total

    def _gathered_verdict(self, status: Status, value: float, message: str = "") -> tuple[Status, float, RankError | None]:
        """Return the highest status of all ranks, the sum of a value over them, and an error if another rank failed."""
        every = self._gathered(torch.tensor([[float(status), value]], dtype=torch.float64))
        statuses = [Status(int(each)) for each in every[:, 0].tolist()]
        failure = None
        if Status.FAILED in statuses:
            messages = self.gather(message if status == Status.FAILED else "")
            self._over = True
            if status != Status.FAILED:
                first = statuses.index(Status.FAILED)
                failure = RankError(failed(first, self.count, messages[first]))
        return max(statuses), float(every[:, 1].sum()), failure

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks, in the order of the ranks; gradients flow to this rank's own rows.

        A collective for use in a forward.

        Raises:
            Agreed: If another rank ran out of memory, had values that are not finite, or failed, before this call.
        """
        if self._group is None:
            return rows
        self.sum_or_stop()
        sizes = self.gather(len(rows))
        buffers = [rows.new_zeros((max(sizes), *rows.shape[1:])) for _ in range(self.count + 1)]
        self.sum_or_stop()  # memory may have run out on another rank, which meets this agreement at the end of its step
        return cast(Tensor, _GatheredRows.apply(rows, self, sizes, buffers))

    def sum_or_stop(self, value: float = 0.0) -> float:
        """Return the sum of a number over all ranks, for use in a forward.

        Raises:
            Agreed: If another rank cannot go on with its forward.
        """
        verdict, total, error = self._gathered_verdict(Status.FINE, value)
        if verdict >= Status.OUT_OF_MEMORY:
            raise Agreed(verdict, error)
        return total

    @contextmanager
    def together(self, forgiven: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Run a section that every rank does on its own; errors on one rank are raised on all at its end.

        May be nested: an error that all ranks raise at the end of an inner section passes through the outer ones.

        Args:
            forgiven: Errors that end this section and not the run: all ranks raise them.

        Raises:
            Stopped: If any rank received a signal.
            RankError: If another rank failed.
        """
        if self._group is None:
            yield
            return
        caught: Exception | None = None
        self._sections += 1
        section = self._sections
        self._open.append(section)
        try:
            yield
        except Exception as error:
            if self._over or self._is_known(error):
                raise
            if self.lockstep and not isinstance(error, Stopped):
                raise (self.lost(error) or error) from error.__cause__
            caught = error
            assert self._heartbeat is not None, "a single process has no heartbeat"
            self._heartbeat.call(section)
        finally:
            self._open.remove(section)
        status = _status_of(caught, forgiven)
        verdict = self.agree(status, described(caught) if caught else "")
        if verdict == Status.DECLINED:
            mine = str(caught) if status == Status.DECLINED else ""  # a rank with a signal sees it at the next poll
            messages = self.gather(mine)
            caught = caught if mine else forgiven[0](next(filter(None, messages)))
        elif verdict == Status.STOP:
            caught = Stopped()
        if caught is not None:
            self._known_error = caught
            raise caught

    def raise_if_another_rank_failed(self) -> None:
        """Raise if another rank has left the section with an error or a signal.

        Raises:
            Stopped: If so; the end of the section then raises the error itself.
        """
        if self._open and not self.lockstep and self._heartbeat is not None and self._heartbeat.called(self._open):
            raise Stopped

    def leave(self, error: BaseException) -> None:
        """Report an error that the other ranks do not know of, and abort the process groups, so that no rank waits for this one."""
        if self._heartbeat is None or not (self._over or isinstance(error, RankError) or not self._is_known(error)):
            return
        if not (self._over or isinstance(error, RankError)):
            self._heartbeat.report_failure(described(error))
        group, self._over, self._group = self._group, True, None
        abort_groups(group)  # ends the collectives that other ranks wait in

    def lost(self, error: Exception) -> RankError | None:
        """Return a ``RankError`` with the cause for an error of a backend that lost another rank; None for other errors."""
        if self._heartbeat is None or not (isinstance(error, RuntimeError) and any(name in str(error) for name in ("gloo", "NCCL"))):
            return None
        return RankError(self._heartbeat.cause(error))

    def known(self, error: T) -> T:
        """Return an error that all ranks raise together, marked so that it is not reported again."""
        self._known_error = error
        return error

    def _is_known(self, error: BaseException) -> bool:
        """Return whether all ranks know of an error or of one of its causes."""
        if isinstance(error, RankError):
            return True
        cause: BaseException | None = error
        while cause is not None:
            if cause is self._known_error:
                return True
            cause = cause.__cause__
        return False


class _GatheredRows(torch.autograd.Function):
    """All-gather of rows, whose backward returns the gradient of this rank's own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks, sizes: list[int], buffers: list[Tensor]) -> Tensor:
        ctx.start, ctx.size = sum(sizes[: ranks.rank]), len(rows)
        return ranks.rows_of_all(rows, sizes, buffers)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        return gradients[0][ctx.start : ctx.start + ctx.size], None, None, None


def described(error: BaseException) -> str:
    """Return the message of an error, with the class for errors that are not ours."""
    return str(error) if isinstance(error, ZooError | InterruptedRunError) else f"{type(error).__name__}: {error}".removesuffix(": ")


def _status_of(error: Exception | None, forgiven: tuple[type[Exception], ...]) -> Status:
    if error is None:
        return Status.FINE
    if isinstance(error, Stopped):
        return Status.STOP
    # A CorruptInputError is an OSError too, and always ends the run.
    broken = isinstance(error, ZooError) and not isinstance(error, DiskFullError)
    return Status.DECLINED if isinstance(error, forgiven) and not broken else Status.FAILED
