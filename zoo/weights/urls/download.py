"""Files of a URL, fetched once into zoo's own cache: resumable, and checked against the digest of the first download."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from zoo.declare.digest_forms import is_sha256
from zoo.errors import WeightsError, owner_prefix
from zoo.util.atomic_write import cache_folder, write_json
from zoo.util.file_digest import file_digest
from zoo.weights.entry_lock import READ_ONLY, entry_lock
from zoo.weights.safetensors_header import read_header
from zoo.weights.urls.transfer import LOOPBACK, fetch


class Downloaded(NamedTuple):
    """A file as it was at the first fetch.

    Attributes:
        path: The file; absent once a checkpoint was converted and removed.
        sha256: Its digest.
        size: Its bytes.
    """

    path: Path
    sha256: str
    size: int


def first_download(url: str) -> Downloaded | None:
    """Return the record of the first download of a URL, or None."""
    folder = downloads_folder() / _key(url)
    try:
        record = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        found = Downloaded(folder / str(record["name"]), str(record["sha256"]), int(record["size"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if is_sha256(found.sha256) else None


def download(url: str, owner: str, *, sha256: str = "", prefix: str = "", size: int = 0) -> Downloaded:
    """Return the file of a URL, from the cache or the network. The caller holds ``locked(url)``.

    Args:
        url: An ``https`` URL; ``http`` only of this machine.
        owner: Name of the backbone, for messages.
        sha256: Digest that the file must have, if known.
        prefix: First digits that its digest must have, if no more is known.
        size: Bytes that the file must have, if known.

    Raises:
        WeightsNotFoundError: If it is not in the cache and cannot be fetched; what was fetched is kept for the next call.
        WeightsError: If it is another file than declared, or than the URL gave the first time; such a file is removed.
        DiskFullError: If there is no room for it.
    """
    name = checked_name(url, owner)
    folder = downloads_folder() / _key(url)
    path = folder / name
    if not path.exists():  # else fetched earlier, or put there by hand
        fetch(url, path, owner, size)
    found, actual = file_digest(path), path.stat().st_size
    faults = [f"it has {actual} bytes, declared are {size}"] if size and actual != size else []
    if sha256 and found != sha256:
        faults.append(f"its sha256 is {found}, declared is {sha256}")
    elif not found.startswith(prefix):
        faults.append(f"its sha256 is {found}, declared is one that begins with {prefix}")
    elif not sha256 and (earlier := first_download(url)) and found != earlier.sha256:
        faults.append(f"its sha256 is {found}, at first it was {earlier.sha256} (if you trust the new file, remove {str(folder)!r})")
    if faults:
        path.unlink()
        raise WeightsError(
            f"{owner_prefix(owner)}{url} gave another file than expected: {'; '.join(faults)}. It was removed; fetch it again"
        )
    if path.suffix == ".safetensors":
        _check_header(path, url, owner)
    if first_download(url) != Downloaded(path, found, actual):
        write_json(folder / "source.json", {"url": url, "name": name, "sha256": found, "size": actual})
    return Downloaded(path, found, actual)


def _check_header(path: Path, url: str, owner: str) -> None:
    """Remove a file and the record of its download if it is not a whole safetensors file, such as one cut off without an error."""
    try:
        read_header(path, owner)
    except WeightsError as error:
        path.unlink()
        forget(url)
        raise WeightsError(f"{error} ({url} gave it; it was removed, and the next call asks the server again)") from error


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Keep other processes from fetching, converting or removing the file of a URL; no lock where the cache is read-only."""
    folder = downloads_folder() / _key(url)
    with entry_lock(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:  # a read-only cache may have the file
            if error.errno not in READ_ONLY:
                raise
        yield


def forget(url: str) -> None:
    """Remove the file of a URL and the record of its first download."""
    found = first_download(url)
    if found:
        found.path.unlink(missing_ok=True)
        found.path.with_name("source.json").unlink(missing_ok=True)


def downloads_folder() -> Path:
    """Return the folder of all files of URLs."""
    return cache_folder() / "downloads"


def _key(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def checked_name(url: str, owner: str) -> str:
    """Return the file's name in the cache, after a check of the URL, which asks no server.

    Raises:
        WeightsError: If it is not https, or holds a password.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise WeightsError(f"{owner_prefix(owner)}{url!r} is refused: weights are fetched over https only")
    if parts.username or parts.password:
        raise WeightsError(
            f"{owner_prefix(owner)}the URL of {parts.hostname} holds a password, which would be stored; download the file by hand"
        )
    name = re.sub(r"[^A-Za-z0-9_.+-]", "_", unquote(parts.path).rpartition("/")[2])[-100:]
    return name if name.strip("._") else "weights"
