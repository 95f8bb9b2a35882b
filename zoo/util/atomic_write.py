"""Atomic writes of small files, and folders of the user."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.errors import DiskFullError
from zoo.util.numbers import in_units

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def user_folder(variable: str, usual: str) -> Path:
    """Return zoo's folder below the one that an ``XDG_…`` variable names, or below its usual place."""
    return Path(os.environ.get(variable) or os.path.expanduser(usual)) / "zoo"  # noqa: PTH111  # Path's method raises without a home


def cache_folder() -> Path:
    """Return the cache folder: ``ZOO_CACHE``, or ``zoo`` in the user's cache folder."""
    given = os.environ.get("ZOO_CACHE")
    if given:
        return Path(os.path.expanduser(given))  # noqa: PTH111  # Path's method raises without a home
    return user_folder("XDG_CACHE_HOME", "~/.cache")


def config_folder() -> Path:
    """Return the folder of the user's own settings."""
    return user_folder("XDG_CONFIG_HOME", "~/.config")


def is_file(path: Path) -> bool:
    """Return whether a file exists; False for names that no file can have, such as too long ones."""
    try:
        return path.is_file()
    except OSError:
        return False


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a text file atomically; a link is replaced, and its target not changed.

    Args:
        path: The file.
        text: Its content.
        private: Whether only the user may read and write it.
    """
    stage = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    mode = 0o600 if private else 0o666  # less the umask
    try:
        with room_for(path, len(text)):
            _write_new(stage, text, mode)
        stage.replace(path)
    except BaseException:
        stage.unlink(missing_ok=True)
        raise


def remove_parts(folder: Path) -> None:
    """Remove temporary files of a killed process."""
    for stage in folder.glob(".*.part"):
        stage.unlink(missing_ok=True)


def _write_new(path: Path, text: str, mode: int) -> None:
    # Removed first, because writing would follow a link of this name.
    with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
        stream.write(text)


@contextmanager
def room_for(path: Path, needed: int) -> Iterator[None]:
    """Raise ``DiskFullError`` if a file cannot be written for lack of space.

    Args:
        path: The file or folder.
        needed: Its approximate size in bytes.

    Raises:
        DiskFullError: With the path, the size, and what is free.
        OSError: For any other error, including those of safetensors.
    """
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number in FULL:
            raise _full(path, needed, number) from error
        if number is not None and not isinstance(error, OSError):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _number(error: Exception) -> int | None:
    """Return the errno of an error, which safetensors has in its message."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(match[1]) if match else None


def _full(path: Path, needed: int, number: int) -> DiskFullError:
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    free = in_units(shutil.disk_usage(there).free)
    error = DiskFullError(
        f"{str(path)!r} cannot be written ({os.strerror(number)}): it takes {in_units(needed)}, and {free} are free there; "
        "make room, or write elsewhere"
    )
    error.errno = number
    return error


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
