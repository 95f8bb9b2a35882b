"""Checks of the Hub client's cache on disk: safe names, links inside the cache, digests of blobs."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from zoo.declare.digest_forms import is_sha256
from zoo.errors import WeightsError, owner_prefix
from zoo.util.file_digest import file_digest

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def unsafe(name: str) -> str:
    """Return why a path inside a repository is unsafe, or an empty string."""
    if not name or name.startswith(("/", "~")):
        return "it is empty, absolute or starts with '~'"
    if re.search(r"[\x00-\x1f\x7f\\:]", name):
        return "it has a backslash, a colon or a control character"
    parts = name.split("/")
    if any(part in ("", ".", "..") or part[-1] in ". " or len(part.encode()) > 255 for part in parts):
        return "one of its parts is empty, a dot, '..', too long, or ends with a dot or a space"
    return "it is reserved by an operating system" if any(map(_RESERVED.fullmatch, parts)) else ""


def is_repository(name: str) -> bool:
    """Return whether a name has the form ``owner/name`` of a repository."""
    return _REPO.fullmatch(name) is not None and ".." not in name and "--" not in name


def check_cached(folder: Path, path: Path, owner: str) -> Path:
    """Check that a file of a snapshot lies in its repository's cache, with the digest that is its name.

    Args:
        folder: The repository's folder in the cache, ``models--…``.
        path: The file in a snapshot, which the Hub's client makes a link into ``blobs``.
        owner: Name of the backbone, for messages.

    Raises:
        WeightsError: If a link leads elsewhere or nowhere, or the content does not have the digest of its name.
    """
    real = path.resolve()
    blobs, shared = (folder / "blobs").resolve(), (folder.parent / "blobs").resolve()
    blob = path.parent.resolve() / path.readlink() if path.is_symlink() else path
    direct = blob.parent.resolve() == blobs and (real.parent == blobs or shared in real.parents)
    unlinked = not path.is_symlink() and (folder / "snapshots").resolve() in real.parents  # no links in this cache
    if not (direct or unlinked):
        raise WeightsError(
            f"{owner_prefix(owner)}{str(path)!r} leads to {str(real)!r}, outside the cache of its repository; remove it and fetch it again"
        )
    if not real.is_file():
        raise WeightsError(
            f"{owner_prefix(owner)}{str(path)!r} leads to {str(real)!r}, which does not exist; remove the link and fetch it again"
        )
    # Large files carry their sha256 as name; small ones the 40 digits of git's own digest.
    if path.is_symlink() and is_sha256(blob.name) and (found := blob_digest(real)) != blob.name:
        raise WeightsError(f"{owner_prefix(owner)}{str(real)!r} is damaged: its sha256 is {found}; remove it and fetch it again")
    return path


def repository_of(path: Path) -> Path | None:
    """Return the repository's folder of a file in a snapshot of a Hub cache, or None for any other file."""
    places = [parent for parent in path.absolute().parents if parent.parent.name == "snapshots"]
    folder = places[0].parent.parent if places else None
    return folder if folder and folder.name.startswith("models--") and (folder / "blobs").is_dir() else None


def is_blob(path: Path) -> bool:
    """Return whether a file is a blob of a Hub cache named by its sha256, which is never written to in place."""
    return path.is_symlink() and repository_of(path) is not None and is_sha256(path.readlink().name)


def blob_digest(path: Path) -> str:
    """Return the sha256 of a blob; computed once, and again if the file was replaced or changed."""
    status = path.stat()
    # Writers cannot set the change time of the inode.
    return _digest(path.resolve(), (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


@lru_cache(maxsize=1024)
def _digest(path: Path, state: tuple[int, ...]) -> str:
    return file_digest(path)
