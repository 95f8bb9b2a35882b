"""One run per folder: a file lock that the system releases when its process ends or is killed."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from zoo.errors import RunLockedError

NAME = "run.lock"
_HELD: dict[Path, int] = {}  # open files of the locks of this process


def lock_folder(folder: Path) -> None:
    """Lock an existing folder for this process.

    On file systems without locks, the process id in the file serves as lock; only processes of the same host can check it.

    Raises:
        RunLockedError: If another run holds it, naming the process, its host and since when.
        OSError: If the lock file cannot be written.
    """
    path = folder / NAME
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        if not _take(file):
            owner = _read(file)
            os.close(file)
            raise RunLockedError(
                f"{str(folder)!r} is in use by another run ({_owner_text(owner)}); wait for it, or choose another folder (out, --out)"
            )
        if _is_at(file, path):
            break
        os.close(file)  # the owner removed the file between the two calls: a deleted file was locked
    _HELD[_key(folder)] = file
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(mine).encode(), 0)
    except OSError:
        unlock_folder(folder)
        raise


def unlock_folder(folder: Path) -> None:
    """Release the lock of a folder, if this process holds it."""
    file = _HELD.pop(_key(folder), None)
    if file is not None:
        (folder / NAME).unlink(missing_ok=True)  # first, or it would remove a file that another process has locked
        os.close(file)


def _take(file: int) -> bool:
    """Try to lock an open file without waiting; return whether it worked."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a file system without locks
        owner = _read(file)
        return not owner or not _may_run(owner)
    return True


def _may_run(owner: dict[str, Any]) -> bool:
    """Return whether the process that wrote a lock file may still run."""
    if owner.get("host") != socket.gethostname():
        return True  # another machine, which cannot be checked from here
    try:
        os.kill(int(owner["pid"]), 0)
    except PermissionError:
        return True
    except (OSError, KeyError, ValueError, TypeError):
        return False
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _read(file: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(file, 4096, 0))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _owner_text(owner: dict[str, Any]) -> str:
    if not owner:
        return "which has just begun"
    return f"process {owner.get('pid')} on {owner.get('host')}, since {owner.get('since')}"


def _key(folder: Path) -> Path:
    return folder.resolve()


def _forget() -> None:
    """Close the parent's locks after a fork: a loader worker that outlives it must not hold them."""
    for file in _HELD.values():
        os.close(file)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
