"""Locks of the entries of zoo's own cache: a file beside the folder of an entry, removed with it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = ".lock"
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def entry_lock(folder: Path, *, timeout: float | None = None) -> Iterator[None]:
    """Keep other processes from fetching, converting or removing an entry; no lock where the cache is read-only.

    Args:
        folder: The entry's folder, which need not exist.
        timeout: Seconds to wait for another process; None waits until it is done.

    Raises:
        TimeoutError: If another process has it locked for longer.
    """
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # not in its __all__

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        yield
        return
    if not os.access(folder.parent, os.W_OK):
        yield
        return
    with WeakFileLock(_path(folder), timeout=timeout):
        yield


def remove_lock(folder: Path) -> None:
    """Remove the lock file of an entry that the caller has locked; processes waiting for it recreate it."""
    with suppress(OSError):  # Windows keeps files that are open
        _path(folder).unlink()


def _path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{SUFFIX}")
