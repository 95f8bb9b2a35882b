"""Pooled features in files of the user's cache, for later processes with the same backbone, samples and machine.

The key is that of ``feature_memo``, which covers all that the values depend on within a process; libraries and processor are added.
``zoo rank`` writes them, and every run reads them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import secrets
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.util.atomic_write import cache_folder, room_for
from zoo.util.versions import versions

log = logging.getLogger("zoo")
LIMIT = 4 * 2**30  # bytes of all files; beyond it those that were used longest ago go
SUFFIX = ".npy"


def features_folder() -> Path:
    """Return the folder of the files."""
    return cache_folder() / "features"


def read_features(key: str) -> Tensor | None:
    """Return stored features; None if there are none, the key is empty, or the file is damaged."""
    if not key or not features_folder().is_dir():
        return None
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


def _path(key: str) -> Path:
    processor = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    where = (versions(), platform.machine(), processor)
    return features_folder() / (hashlib.sha256(f"{key}{where}".encode()).hexdigest() + SUFFIX)


def _prune(folder: Path) -> None:
    """Remove files beyond the limit, and those of killed processes."""
    states = sorted(((path.stat(), path) for path in folder.glob(f"*{SUFFIX}*")), key=lambda pair: -pair[0].st_mtime)
    total = 0
    for state, path in states:
        total += state.st_size
        if total > LIMIT:
            path.unlink(missing_ok=True)
