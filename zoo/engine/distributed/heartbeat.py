"""Rank heartbeats and last error messages, in the launcher's store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_STORES: list[Any] = []  # the launcher's store, needed after the process group is destroyed
_ANNOUNCED = "zoo/announced"


class Heartbeat:
    """Counters of collectives and failure messages of all ranks, to name the rank that hangs or failed.

    Args:
        store: The launcher's store, with keys of this run only.
        rank: Number of this process.
        count: Number of ranks.
        timeout: Seconds that a rank waits for the others.
    """

    def __init__(self, store: Any, rank: int, count: int, timeout: float) -> None:
        self._store, self.rank, self.count, self.timeout = store, rank, count, timeout
        self._beats, self._looked = 0, 0.0

    def beat(self) -> None:
        """Count one collective; call it before the collective."""
        self._beats += 1
        self._store.set(f"beat/{self.rank}", str(self._beats))

    def report_failure(self, message: str) -> None:
        """Store why this rank failed; the first report counts as the cause."""
        with suppress(RuntimeError):  # the store ends with the process that hosts it
            self._store.set(f"word/{self.rank}", message)
            self._store.compare_set("first", "", str(self.rank))

    def call(self, section: int) -> None:
        """Ask the other ranks to end a section, given by its number; see ``Ranks.together``."""
        with suppress(RuntimeError):
            self._store.set(f"called/{section}", "1")

    def called(self, sections: Sequence[int]) -> bool:
        """Return whether another rank asked to end one of these sections; the store is read at most once a second."""
        now = time.monotonic()
        if now - self._looked < 1:
            return False
        self._looked = now
        with suppress(RuntimeError):
            return any(self._read(f"called/{section}") for section in sections)
        return False

    def cause(self, error: Exception) -> str:
        """Return why a collective failed with an error: the first report of a rank, else the ranks that are behind and the error."""
        reported, text = self._cause()
        first = str(error).strip().partition("\n")[0]
        return text if reported else f"{text} (the collective failed with: {first})"

    def _cause(self) -> tuple[bool, str]:
        """Return whether a rank has reported the cause, and the cause."""
        time.sleep(0.2)  # other ranks may be between a beat and its collective
        try:
            first = self._read("first")
            if first and int(first) != self.rank:
                return True, failed(int(first), self.count, self._read(f"word/{first}"))
            beats = {rank: int(self._read(f"beat/{rank}") or 0) for rank in range(self.count)}
        except RuntimeError:
            return False, self._silent("rank 0, which hosts the store,")
        behind = [str(rank) for rank, beat in beats.items() if rank != self.rank and beat < self._beats]
        return False, self._silent(f"rank {', '.join(behind)}" if behind else "another rank")

    def _read(self, key: str) -> str:
        return str(self._store.get(key).decode()) if self._store.check([key]) else ""

    def _silent(self, who: str) -> str:
        return (
            f"{who} of {self.count} no longer answers (it died, or took more than {self.timeout:g} s), so all stop. "
            "Look for what it printed last. Where the run has a checkpoint already, resume=True (--resume) goes on from it"
        )


def set_announcement_store(store: Any) -> None:
    """Set the store of ``announce`` and ``announced``."""
    _STORES[:] = [store]


def announce(text: str) -> None:
    """Store the error that the user was shown, for the other ranks; only the first counts."""
    with suppress(RuntimeError):
        for store in _STORES:
            store.compare_set(_ANNOUNCED, "", text)


def announced(seconds: float) -> str:
    """Return the error that another rank has shown, waiting up to ``seconds`` for it; empty if there is none."""
    deadline = time.monotonic() + seconds
    with suppress(RuntimeError):
        while _STORES and time.monotonic() < deadline:
            if _STORES[0].check([_ANNOUNCED]):
                return str(_STORES[0].get(_ANNOUNCED).decode())
            time.sleep(0.05)
    return ""


def failed(rank: int, count: int, message: str) -> str:
    """Return the message for a rank that failed with a message."""
    return f"rank {rank} of {count} failed, so all stop: {message}"
