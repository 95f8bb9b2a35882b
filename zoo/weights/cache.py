"""Entries of zoo's own cache of weights: files of URLs, and safetensors made of checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from zoo.weights.cache_errors import cache_errors
from zoo.weights.converted import converted_folder
from zoo.weights.entry_lock import SUFFIX, entry_lock, remove_lock
from zoo.weights.urls.download import downloads_folder

LOCK_TIMEOUT = 0.1  # seconds to wait for an entry that another process has locked
_RECORDS = {"download": ("source.json", "url"), "converted": ("conversion.json", "source")}


class CacheEntry(NamedTuple):
    """A folder of the cache.

    Attributes:
        kind: ``download``, ``converted`` or ``features``.
        name: URL of a download, or name of the checkpoint that was converted.
        size: Bytes of all its files.
        used: Seconds since 1970 when one of its files was last read, or written where the file system does not record reads.
        folder: The folder.
    """

    kind: str
    name: str
    size: int
    used: float
    folder: Path


class Pruned(NamedTuple):
    """Result of ``prune``: removed entries, largest first, and folders skipped because another process holds their lock."""

    removed: list[CacheEntry]
    busy: list[Path]


def entries() -> list[CacheEntry]:
    """Return what is in the cache, the largest first; downloads whose file was converted and removed do not count.

    Raises:
        OutputPermissionError: If the cache cannot be read.
    """
    with cache_errors(""):
        found = [_entry(kind, folder) for kind, folder in _folders()]
    return sorted((entry for entry in found if entry), key=lambda entry: -entry.size)


def prune(limit: float) -> Pruned:
    """Remove the entries that were last used before a time, with their lock files and those that older entries left.

    A download keeps its record, so a later fetch is verified against it.

    Args:
        limit: Seconds since 1970.

    Raises:
        OutputPermissionError: If the cache cannot be read or written.
    """
    removed, busy = list[CacheEntry](), list[Path]()
    with cache_errors(""):
        for kind, folder in _folders():
            if _is_recent(_entry(kind, folder), limit):
                continue
            try:
                with entry_lock(folder, timeout=LOCK_TIMEOUT):
                    entry = _entry(kind, folder)  # again, as another process may have used it until now
                    if _is_recent(entry, limit):
                        continue
                    _remove(kind, folder)
                    removed += [entry] if entry else []
                    remove_lock(folder)
            except TimeoutError:
                busy.append(folder)
    return Pruned(sorted(removed, key=lambda entry: -entry.size), busy)


def _folders() -> Iterator[tuple[str, Path]]:
    """Yield kind and folder of every entry, also of entries of which there is only a lock."""
    for kind, root in (("download", downloads_folder()), ("converted", converted_folder())):
        there = [*root.iterdir()] if root.is_dir() else []
        yield from ((kind, root / name) for name in sorted({path.name.removesuffix(SUFFIX) for path in there}))


def _entry(kind: str, folder: Path) -> CacheEntry | None:
    """Return what is in a folder; None if nothing but its record is there."""
    record, key = _RECORDS[kind]
    files = []
    for path in _files(folder):
        if path.name not in (record, "lock"):  # earlier versions kept a lock there
            with suppress(FileNotFoundError):  # a download that was renamed meanwhile
                files.append(path.stat())
    if not files:
        return None
    used = max(max(status.st_atime, status.st_mtime) for status in files)
    return CacheEntry(kind, _name(folder / record, key) or folder.name, sum(status.st_size for status in files), used, folder)


def _is_recent(entry: CacheEntry | None, limit: float) -> bool:
    return entry is not None and entry.used > limit


def _remove(kind: str, folder: Path) -> None:
    """Remove the files of a folder, and the folder unless it has the record of a download."""
    for path in _files(folder):
        if kind == "converted" or path.name != _RECORDS[kind][0]:
            path.unlink()
    with suppress(OSError):  # not empty, or absent
        folder.rmdir()


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # there is only a lock, or another process removed it meanwhile
        return []


def _name(path: Path, key: str) -> str:
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        return str(record[key])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
