"""One run per folder: a lock that the system takes back when its process ends, however it ends."""

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
    """Lock a folder that exists for this process.

    Where the file system knows no locks, the number of the process in the file has to do, which only its own host can check.

    Raises:
        RunLockedError: If another run holds it, naming the process, its host and since when.
        OSError: If the lock file cannot be written.
    """
    path = folder / NAME
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        if not _take(file):
            told = _read(file)
            os.close(file)
            raise RunLockedError(
                f"{str(folder)!r} is in use by another run ({_owner(told)}); wait for it, or choose another folder (out, --out)"
            )
        if _is_at(file, path):
            break
        os.close(file)  # its owner removed the file between the two calls: what was locked has no name any more
    _HELD[_key(folder)] = file
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(mine).encode(), 0)
    except OSError:
        unlock_folder(folder)
        raise


def unlock_folder(folder: Path) -> None:
    """Give back the lock of a folder, if this process holds it."""
    file = _HELD.pop(_key(folder), None)
    if file is not None:
        (folder / NAME).unlink(missing_ok=True)  # first, or another process could have locked what is then removed
        os.close(file)


def _take(file: int) -> bool:
    """Lock an open file without waiting; tell whether it worked."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a file system without locks
        told = _read(file)
        return not told or not _may_run(told)
    return True


def _may_run(told: dict[str, Any]) -> bool:
    """Tell whether the process that wrote a lock file may still be there."""
    if told.get("host") != socket.gethostname():
        return True  # a process of another machine: not known here
    try:
        os.kill(int(told["pid"]), 0)
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
        told = json.loads(os.pread(file, 4096, 0))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _owner(told: dict[str, Any]) -> str:
    if not told:
        return "which has just begun"
    return f"process {told.get('pid')} on {told.get('host')}, since {told.get('since')}"


def _key(folder: Path) -> Path:
    return folder.resolve()


def _forget() -> None:
    """Close the locks of the process that was forked: a loader worker that lives on for a moment must not keep them."""
    for file in _HELD.values():
        os.close(file)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
