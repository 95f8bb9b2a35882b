"""A context in which glibc keeps freed memory in the process, as each layer on the CPU else asks the system for its blocks again."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

# Parameters of glibc's mallopt(3), and the values that its own adjustment reaches once large blocks have been freed.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
NEVER, NO_MAPPINGS = -1, 0
USUAL = ((MMAP_MAX, 65536), (MMAP_THRESHOLD, 32 << 20), (TRIM_THRESHOLD, 64 << 20))

_lock = Lock()
_open = 0


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let glibc keep freed blocks of any size while the context is open, and give what is free back to the system at its end.

    By default glibc maps each block above 32 MiB anew and unmaps it when it is freed. Activations of a batch are such blocks, so that
    each layer pays for a page fault every 4 KiB (docs/benchmarks.md). Contexts nest, also over threads; after the first one the
    thresholds stay at ``USUAL``, which glibc itself no longer adjusts then. Nothing happens with another C library, or where the
    environment tunes malloc (``MALLOC_…``, ``GLIBC_TUNABLES``).
    """
    global _open
    libc = _glibc()
    if libc is None:
        yield
        return
    with _lock:
        _open += 1
        if _open == 1:
            libc.mallopt(MMAP_MAX, NO_MAPPINGS)
            libc.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if not _open:
                for parameter, value in USUAL:
                    libc.mallopt(parameter, value)
                libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(name.startswith("MALLOC_") for name in os.environ)
    return None if tuned or platform.libc_ver()[0] != "glibc" else ctypes.CDLL(None)
