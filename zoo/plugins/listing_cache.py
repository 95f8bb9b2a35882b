"""Cache of plugin listings per installed distribution, so that later listings import no plugin.

One file per plugin below the user's cache folder, in the format of ``listing_file``. It holds declarations only. Its ``key`` covers
the distribution and its files, the versions of its requirements, and zoo itself.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo import declare
from zoo.plugins.listing_file import Listed, decode, encode
from zoo.plugins.loader import Plugin
from zoo.plugins.policy import OWN
from zoo.util.atomic_write import cache_folder, write_text

FORMAT = 2
MOST_FILES = 2000  # of a plugin installed in place; larger ones are imported each time


def recall(plugin: Plugin) -> Listed | None:
    """Return the cached listing of a plugin, or None if it is missing or out of date."""
    path = _file(plugin)
    if path is None:
        return None
    try:
        key = _key(plugin)
        return decode(_trusted(path), key) if key else None
    except Exception:  # missing, damaged, or of another format
        return None


def remember(plugin: Plugin, listed: Listed) -> bool:
    """Store the listing of a plugin; return False if that fails, so that it is imported each time."""
    path = _file(plugin)
    if path is None:
        return False
    try:
        key = _key(plugin)
        if key is None:
            return False
        text = encode(listed, key)
        if not _equal(decode(text.encode(), key), listed):  # such as a list in place of a tuple
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)  # other users can write to the folder
        write_text(path, text, private=True)
    except Exception:  # such as an odd declaration or a full disk
        return False
    return True


def _equal(read: Listed | None, listed: Listed) -> bool:
    return read is not None and [*read.backbones] == [*listed.backbones] and (read.heads, read.hooks) == (listed.heads, listed.hooks)


def forget(plugin: Plugin) -> None:
    """Remove the cached listing of a plugin, so that it is imported at its next use."""
    path = _file(plugin)
    if path is not None:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return


def _file(plugin: Plugin) -> Path | None:
    if plugin.found is None or plugin.distribution == OWN:  # importing zoo's own plugin is faster than reading a file
        return None
    name = "".join(sign if sign.isalnum() or sign in "-_" else "_" for sign in f"{plugin.distribution}--{plugin.name}")
    return cache_folder() / "plugins" / f"{name}.json"


def _trusted(path: Path) -> bytes:
    """Return the content of a file that no other user could have written, as its references are imported later.

    Raises:
        OSError: If another user could. The opened file is checked, so that it cannot be exchanged in between.
    """
    if not hasattr(os, "getuid"):
        return path.read_bytes()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check_own(folder)
        with open(path.name, "rb", opener=lambda name, flags: os.open(name, flags, dir_fd=folder)) as file:
            _check_own(file.fileno())
            return file.read()
    finally:
        os.close(folder)


def _check_own(handle: int) -> None:
    status = os.fstat(handle)
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError("others can write here")


def _key(plugin: Plugin) -> list[Any] | None:
    """Return the key of a listing, or None if it cannot be determined."""
    assert plugin.found is not None
    stamps = _stamps(plugin)
    if stamps is None:
        return None
    declarations = [list(_stamp(file) or ()) for file in sorted(Path(declare.__file__).parent.glob("*.py"))]
    about = [FORMAT, declarations, list(sys.version_info[:3])]
    return [*about, plugin.distribution, plugin.version, plugin.module, plugin.found.info, dict(plugin.versions), stamps]


def _stamps(plugin: Plugin) -> list[list[Any]] | None:
    """Return path, time and size of the metadata files, and of the sources of a plugin installed in place."""
    assert plugin.found is not None
    info = Path(plugin.found.info)
    names = ("RECORD", "direct_url.json", "METADATA", "entry_points.txt")
    files = [info / name for name in names]
    files += [Path(line) for line in _sources(plugin.module, recursive=not (info / "RECORD").is_file() or _in_place(info))]
    return [[str(file), *(_stamp(file) or ())] for file in files] if len(files) < MOST_FILES else None


def _in_place(info: Path) -> bool:
    url = info / "direct_url.json"
    return url.is_file() and '"editable"' in url.read_text(encoding="utf-8")


def _sources(reference: str, *, recursive: bool) -> Iterator[str]:
    top = reference.partition(":")[0].strip().partition(".")[0]
    spec = importlib.util.find_spec(top)  # without importing the module
    if spec is None:
        return
    if spec.origin:
        yield spec.origin
    for folder in spec.submodule_search_locations or () if recursive else ():
        for place, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
            yield from (f"{place}{os.sep}{name}" for name in sorted(names))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
