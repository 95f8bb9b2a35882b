"""Rank heartbeats and last error messages, in the launcher's store."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from torch.distributed.distributed_c10d import _get_default_store  # the launcher's store; torch names no other way

_RUNS = itertools.count()  # equal on all ranks, as they start the same runs
_STORES: list[Any] = []  # the launcher's, kept beyond the end of a process group
_ANNOUNCED = "zoo/announced"


class Heartbeat:
    """Tells who of several processes is behind, and what one that failed said.

    Args:
        rank: Number of this process.
        count: Number of processes.
        timeout: Seconds that one waits for the others.
    """

    def __init__(self, rank: int, count: int, timeout: float) -> None:
        self.rank, self.count, self.timeout = rank, count, timeout
        self._store: Any = _get_default_store()
        _STORES[:] = [self._store]
        self._prefix = f"zoo/{next(_RUNS)}"
        self._beats, self._looked = 0, 0.0

    def beat(self) -> None:
        """Count one collective, before it is entered."""
        self._beats += 1
        self._store.set(f"{self._prefix}/beat/{self.rank}", str(self._beats))

    def report_failure(self, message: str) -> None:
        """Say why this process goes; the first that does so is taken for the cause."""
        with suppress(RuntimeError):  # the store went with the process that kept it
            self._store.set(f"{self._prefix}/word/{self.rank}", message)
            self._store.compare_set(f"{self._prefix}/first", "", str(self.rank))

    def call(self, place: int) -> None:
        """Ask the others to come to the agreement at the end of what they do by themselves, the ``place``-th such part."""
        with suppress(RuntimeError):
            self._store.set(f"{self._prefix}/called/{place}", "1")

    def called(self, places: Sequence[int]) -> bool:
        """Tell whether one of the others asked for it in one of these parts; looked up once a second at most."""
        now = time.monotonic()
        if now - self._looked < 1:
            return False
        self._looked = now
        with suppress(RuntimeError):
            return any(self._read(f"called/{place}") for place in places)
        return False

    def cause(self) -> str:
        """Return why the others no longer answer, as far as it is known."""
        time.sleep(0.2)  # the others may be between their count and their collective
        try:
            first = self._read("first")
            if first and int(first) != self.rank:
                return failed(int(first), self.count, self._read(f"word/{first}"))
            beats = {rank: int(self._read(f"beat/{rank}") or 0) for rank in range(self.count)}
        except RuntimeError:
            return self._silent("rank 0, which keeps the list of all,")
        behind = [str(rank) for rank, beat in beats.items() if rank != self.rank and beat < self._beats]
        return self._silent(f"rank {', '.join(behind)}" if behind else "another rank")

    def _read(self, key: str) -> str:
        full = f"{self._prefix}/{key}"
        return str(self._store.get(full).decode()) if self._store.check([full]) else ""

    def _silent(self, who: str) -> str:
        return (
            f"{who} of {self.count} no longer answers (it died, or took more than {self.timeout:g} s), so all stop. "
            "Look for what it printed last. Where the run has a checkpoint already, resume=True (--resume) goes on from it"
        )


def announce(text: str) -> None:
    """Leave word for the other processes of what the user was shown; only the first word counts."""
    with suppress(RuntimeError):
        for store in _STORES:
            store.compare_set(_ANNOUNCED, "", text)


def announced(seconds: float) -> str:
    """Return what the user was shown by another process, waited for as long as that; empty if it is not known."""
    deadline = time.monotonic() + seconds
    with suppress(RuntimeError):
        while _STORES and time.monotonic() < deadline:
            if _STORES[0].check([_ANNOUNCED]):
                return str(_STORES[0].get(_ANNOUNCED).decode())
            time.sleep(0.05)
    return ""


def failed(rank: int, count: int, message: str) -> str:
    """Return the message for a rank that failed and said why."""
    return f"rank {rank} of {count} failed, so all stop: {message}"
