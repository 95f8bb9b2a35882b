"""The caches that live as long as the process, in one object: to clear them costs time and changes no result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class ProcessCaches:
    """Caches by name, each made at its first use."""

    def __init__(self) -> None:
        self._caches: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], T]) -> T:
        """Return the cache of this name, the same one until all are cleared.

        Args:
            name: What it holds.
            make: Makes an empty one.
        """
        found: T | None = self._caches.get(name)
        # Of two threads that come first, both go on with one cache.
        return self._caches.setdefault(name, make()) if found is None else found

    def clear(self) -> None:
        """Forget all of them; a run in progress goes on, and computes again what it needs."""
        self._caches.clear()


CACHES = ProcessCaches()
