"""Files of images and volumes below a folder. Names are read, no image is opened."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from zoo.data.images.codecs import OPTIONAL, UNREAD, can_read, remedy
from zoo.data.images.scans.dicom import is_dicom
from zoo.errors import DataError, count

PICTURE_SUFFIXES = (
    ".avif",
    ".bmp",
    ".gif",
    ".heic",
    ".heif",
    ".jfif",
    ".jp2",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
IMAGE_SUFFIXES = (*PICTURE_SUFFIXES, ".dcm", ".dicom", ".nii", ".nii.gz", ".npy", ".npz")

log = logging.getLogger("zoo")
Identity = tuple[int, int]


def walk(folder: str, above: frozenset[Identity] = frozenset(), *, unread: Counter[str] | None = None) -> Iterator[str]:
    """Yield the images at any depth, sorted by name; links to parent folders are not followed.

    Args:
        folder: The folder.
        above: Identities of folders that are not entered.
        unread: Counts pictures of kinds that cannot be decoded, by suffix; extended in place.

    Raises:
        DataError: If a folder cannot be listed.
    """
    unread = Counter() if unread is None else unread
    here = identity(folder)
    if here in above:
        return
    # No recursion: a folder may be deeper than Python's stack.
    levels = [(iter(entries(folder)), above | {here})]
    while levels:
        listed, parents = levels[-1]
        entry = next(listed, None)
        if entry is None:
            levels.pop()
        elif is_dir(entry):
            if (one := identity(entry.path)) not in parents:
                levels.append((iter(entries(entry.path)), parents | {one}))
        elif is_image(entry, unread):
            yield entry.path


def entries(folder: str) -> list[os.DirEntry[str]]:
    """Return what a folder holds, sorted by name, without hidden files.

    Raises:
        DataError: If it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except PermissionError as error:
        raise DataError(f"the folder {folder!r} may not be read; change its permissions") from error
    except OSError as error:  # such as a path that is too long
        raise DataError(f"the folder {folder!r} cannot be read: {error.strerror}") from error


def is_dir(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def identity(folder: str | Path) -> Identity:
    """Return what identifies a folder on the disk.

    Raises:
        DataError: If its path is too long.
    """
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError as error:
        raise DataError(f"the folder {os.fspath(folder)!r} cannot be read: {error.strerror}") from error
    return status.st_dev, status.st_ino


def is_image(entry: os.DirEntry[str], unread: Counter[str]) -> bool:
    """Return whether an entry is an image or a volume; pictures of kinds that cannot be decoded are counted in ``unread``."""
    name = entry.name.lower()
    suffix = os.path.splitext(name)[1]  # noqa: PTH122
    if suffix in (*OPTIONAL, *UNREAD) and not can_read(suffix):
        unread[suffix] += _is_file(entry)
        return False
    if name.endswith(IMAGE_SUFFIXES):
        return _is_file(entry) or (entry.is_symlink() and not Path(entry.path).exists())  # a broken link raises an error later
    # Scanners and archives write DICOM files without a suffix, or with names of numbers and dots.
    return (not suffix or suffix[1:].isdigit()) and _is_file(entry) and _starts_as_dicom(entry.path)


def describe_unread(unread: Counter[str]) -> str:
    """Return how many pictures cannot be decoded, and what would make them readable."""
    return "; ".join(f"{count(number, f'{suffix} file')} cannot be decoded ({remedy(suffix)})" for suffix, number in sorted(unread.items()))


def _starts_as_dicom(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False
