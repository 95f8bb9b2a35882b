"""Pooled features in files of the user's cache, for later processes with the same backbone, samples and machine.

The key is that of ``feature_memo``, which covers all that the values depend on within a process; libraries and processor are added.
``zoo rank`` writes them, and every run reads them; ``zoo cache`` lists and removes them, without torch.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from zoo.util.atomic_write import cache_folder, room_for
from zoo.util.versions import versions

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("zoo")
LIMIT = 4 * 2**30  # bytes of all files; beyond it those that were used longest ago go
SUFFIX = ".npy"
WRITING = 3600.0  # seconds after which a file that is not whole yet is one of a killed process


class Stored(NamedTuple):
    """A file of features.

    Attributes:
        path: The file.
        size: Bytes.
        used: Seconds since 1970 when it was last read or written.
    """

    path: Path
    size: int
    used: float


def features_folder() -> Path:
    """Return the folder of the files."""
    return cache_folder() / "features"


def read_features(key: str) -> Tensor | None:
    """Return stored features; None if there are none, the key is empty, or the file is damaged."""
    if not key or not features_folder().is_dir():
        return None
    import torch

    path = _path(key)
    try:
        values = torch.from_numpy(np.load(path, allow_pickle=False))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, TypeError) as error:
        log.warning("%r is damaged (%s); the features are computed again", str(path), error)
        return None
    with suppress(OSError):  # the cache may be read-only
        os.utime(path)
    return values


def write_features(key: str, features: Tensor) -> None:
    """Store features; a failure is logged and ends nothing. Without a key nothing is stored."""
    if not key:
        return
    path = _path(key)
    stage = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with room_for(path, features.nbytes), stage.open("xb") as stream:
            np.save(stream, features.numpy(), allow_pickle=False)
        stage.replace(path)
        _prune(path.parent)
    except OSError as error:
        log.warning("the features are not stored for later: %s", error)
        with suppress(OSError):
            stage.unlink()


def stored_features() -> list[Stored]:
    """Return the files, those that were used last first."""
    return sorted(_files(features_folder()), key=lambda file: -file.used)


def prune_features(limit: float) -> list[Stored]:
    """Remove the files that were last used before a time, and return them; one that is being written stays.

    Args:
        limit: Seconds since 1970.
    """
    removed = []
    for file in stored_features():
        if file.used <= (limit if file.path.suffix == SUFFIX else min(limit, time.time() - WRITING)):
            file.path.unlink(missing_ok=True)
            removed.append(file)
    return removed


def _files(folder: Path) -> Iterator[Stored]:
    for path in folder.glob(f"*{SUFFIX}*"):
        with suppress(FileNotFoundError):  # another process removed it meanwhile
            state = path.stat()
            yield Stored(path, state.st_size, state.st_mtime)


def _path(key: str) -> Path:
    import torch

    processor = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    where = (versions(), platform.machine(), processor)
    return features_folder() / (hashlib.sha256(f"{key}{where}".encode()).hexdigest() + SUFFIX)


def _prune(folder: Path) -> None:
    """Remove files beyond the limit, and those of killed processes."""
    total = 0
    for file in sorted(_files(folder), key=lambda file: -file.used):
        total += file.size
        if total > LIMIT:
            file.path.unlink(missing_ok=True)
