"""Entries of zoo's own cache of weights: files of URLs, and safetensors made of checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from zoo.weights.converted import converted_folder
from zoo.weights.download import downloads_folder


class CacheEntry(NamedTuple):
    """A folder of the cache.

    Attributes:
        kind: ``download`` or ``converted``.
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


def entries() -> list[CacheEntry]:
    """Return what is in the cache, the largest first; downloads whose file was converted and removed do not count."""
    return sorted(_entries(), key=lambda entry: -entry.size)


def remove(entry: CacheEntry) -> None:
    """Remove the files of an entry; a download keeps its record, so a later fetch is verified against it."""
    if entry.kind == "converted":
        shutil.rmtree(entry.folder)
        return
    for path in entry.folder.iterdir():
        if path.name not in ("source.json", "lock"):
            path.unlink()


def _entries() -> Iterator[CacheEntry]:
    for kind, root, record, key in (
        ("download", downloads_folder(), "source.json", "url"),
        ("converted", converted_folder(), "conversion.json", "source"),
    ):
        for folder in root.iterdir() if root.is_dir() else ():
            files = [path.stat() for path in folder.iterdir() if path.name not in (record, "lock")] if folder.is_dir() else []
            if files:
                used = max(max(status.st_atime, status.st_mtime) for status in files)
                yield CacheEntry(kind, _name(folder / record, key) or folder.name, sum(status.st_size for status in files), used, folder)


def _name(path: Path, key: str) -> str:
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        return str(record[key])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
