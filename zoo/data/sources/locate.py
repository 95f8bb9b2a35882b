"""Find the files that a table or a list names: below a folder, by suffixes, in either form of Unicode and of separators."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from zoo.data.sources.image_files import IMAGE_SUFFIXES, walk
from zoo.data.unreadable_input import UnreadableInputsError
from zoo.errors import DataError, count, examples

log = logging.getLogger("zoo")
_SUFFIXES = sorted(IMAGE_SUFFIXES, key=len, reverse=True)  # .nii.gz before .gz

_URL = re.compile(r"(?:https?|s3|gs|ftp)://", re.IGNORECASE)
_FETCH = "download the files, and give root=FOLDER (--root) with the last part of each as its name"
_DRIVE = re.compile(r"[A-Za-z]:/")  # of an absolute path of Windows


def place_files(
    inputs: Sequence[Any],
    source: str,
    base: Path | None = None,
    root: str | os.PathLike[str] | None = None,
    *,
    reads: str = "image",
    missing_ok: bool = False,
) -> list[Any]:
    """Return inputs as paths of files that exist; images and arrays are unchanged.

    Names are relative to ``root``, else to ``base``, else to the current folder. A name that is not a file may lack its suffix, have
    backslashes, or be written in Unicode's other form; with ``root`` it may also be anywhere below. A folder is a sample of a model that
    ``reads`` volumes, and of no other.

    Raises:
        UnreadableInputsError: If files do not exist, naming the first four, unless ``missing_ok``.
        DataError: If a name fits several, or URLs are named.
    """
    folder = _folder(base, root)
    # os.path is ten times faster than Path over 10^5 rows.
    placed = [os.path.join(folder, item) if isinstance(item, str | os.PathLike) else item for item in inputs]  # noqa: PTH118
    series = reads == "volume"  # as a folder of DICOM files
    rows = [row for row, item in enumerate(placed) if isinstance(item, str) and not _exists(item, folders=series)]
    if not rows:
        return placed
    places = _Places(folder, deep=root is not None, folders=series)
    several, missing = [], []
    for row in rows:
        name = os.fspath(inputs[row])
        found = places.of(name)
        if len(found) == 1:
            placed[row] = found[0]
        elif found:
            several.append(f"{name!r} ({examples([repr(os.path.relpath(path, folder or '.')) for path in found], 2)})")
        else:
            missing.append(repr(placed[row]) + _kind_of(placed[row]))
    if several:
        raise DataError(f"{source}: several files fit {count(len(several), 'name')} of {len(placed)}: {examples(several)}; name one")
    if missing and not missing_ok:
        urls = sum(isinstance(item, str) and bool(_URL.match(item)) for item in inputs)
        if urls:
            wrong = f"{source}: {count(urls, 'name')} of {len(placed)} {'is a URL' if urls == 1 else 'are URLs'}"
            raise DataError(f"{wrong}, which are not fetched: {examples(missing)}; {_FETCH}")
        hint = f"; paths are relative to {folder or str(Path.cwd())!r}, and suffixes such as .png and .jpg were tried"
        hint += "" if root is not None else "; root=FOLDER (--root) names another folder"
        do = "does" if len(missing) == 1 else "do"
        wrong = f"{source} names {count(len(missing), 'file')} of {len(placed)} that {do} not exist: {examples(missing)}"
        raise UnreadableInputsError(wrong + hint)
    if len(rows) > len(missing):
        log.info("%s: %s of %d found %s", source, count(len(rows) - len(missing), "file"), len(placed), places.how(folder))
    return placed


def any_is_placed(
    names: Sequence[str], base: Path | None = None, root: str | os.PathLike[str] | None = None, *, reads: str = "image"
) -> bool:
    """Return whether one of some names is found as ``place_files`` finds it.

    Raises:
        DataError: If there is no folder ``root``.
    """
    folder, series = _folder(base, root), reads == "volume"
    if any(_exists(os.path.join(folder, name), folders=series) for name in names):  # noqa: PTH118
        return True
    places = _Places(folder, deep=root is not None, folders=series)
    return any(places.of(name) for name in names)


def _folder(base: Path | None, root: str | os.PathLike[str] | None) -> str:
    """Return the folder that names are relative to; empty for the current one."""
    if root is None:
        return "" if base is None else str(base)
    folder = os.path.expanduser(os.fspath(root))  # noqa: PTH111  # Path's raises for an unknown user
    if not os.path.isdir(folder):  # noqa: PTH112
        raise DataError(f"root is {folder!r}, and there is no such folder")
    return folder


def _exists(path: str, *, folders: bool) -> bool:
    return os.path.isfile(path) or (folders and os.path.isdir(path))  # noqa: PTH112, PTH113


def _kind_of(path: str) -> str:
    """Return what a path is that is not a file, such as a pipe, which would be waited for; empty if there is nothing."""
    return " (a folder)" if os.path.isdir(path) else " (no regular file)" if os.path.exists(path) else ""  # noqa: PTH110, PTH112


class _Places:
    """The files of a folder by the ways in which a name may differ from them."""

    def __init__(self, folder: str, *, deep: bool, folders: bool) -> None:
        self._folder, self._deep, self._folders = folder, deep, folders
        self._listed: dict[str, dict[str, list[str]]] = {}
        self._below: dict[str, list[str]] | None = None
        self._suffixes: set[str] = set()
        self._ways: dict[str, None] = {}

    def of(self, name: str) -> list[str]:
        """Return the files that a name fits: in its own folder, else anywhere below."""
        if "\\" in name:
            self._ways["with / for \\"] = None
            name = name.replace("\\", "/")
        if name != name.strip():
            self._ways["without blanks around"] = None
            name = name.strip()
        if self._deep and _DRIVE.match(name):
            self._ways["by the end of their paths"] = None
            return self._by_end(name)
        path = os.path.join(self._folder, name)  # noqa: PTH118
        key = _composed(os.path.basename(name))  # noqa: PTH119
        found = _fitting(self._here(os.path.dirname(path)), key)  # noqa: PTH120
        if not found and self._deep:
            if self._below is None:
                self._below = _by_name(walk(self._folder))
            parents = _composed(os.path.dirname(name)).strip("/")  # noqa: PTH120
            end = f"/{parents}/" if parents else "/"
            found = [one for one in _fitting(self._below, key) if f"{_composed(os.path.dirname(one))}/".endswith(end)]  # noqa: PTH120
            if found:
                self._ways["in folders below"] = None
        for one in found:
            suffix = os.path.splitext(one)[1]  # noqa: PTH122
            if key.lower().endswith(suffix.lower()):
                self._ways.update({} if key.endswith(suffix) else {"in another case of the suffix": None})
            else:
                self._suffixes.add(suffix)
        return found

    def _by_end(self, name: str) -> list[str]:
        """Return the files below the folder whose path has most of the last parts of an absolute path of Windows."""
        if self._below is None:
            self._below = _by_name(walk(self._folder))
        parts = [_composed(part) for part in _DRIVE.sub("", name).split("/") if part]
        found = _fitting(self._below, parts[-1]) if parts else []
        for depth in range(2, len(parts) + 1):
            end = "/" + "/".join(parts[-depth:-1])
            closer = [one for one in found if _composed(os.path.dirname(one)).endswith(end)]  # noqa: PTH120
            if not closer:
                break
            found = closer
        return found

    def how(self, folder: str) -> str:
        """Return in words how the files were found."""
        ways = [f"with the suffix {', '.join(sorted(self._suffixes))}"] if self._suffixes else []
        return ", ".join([*ways, *self._ways] or ["in another form of Unicode"]) + f", in {folder or str(Path.cwd())!r}"

    def _here(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._listed:
            try:
                with os.scandir(folder or ".") as entries:
                    self._listed[folder] = _by_name(
                        os.path.join(folder, entry.name)  # noqa: PTH118
                        for entry in entries
                        if _exists(entry.path, folders=self._folders)
                    )
            except OSError:  # no such folder
                self._listed[folder] = {}
        return self._listed[folder]


def _composed(text: str) -> str:
    """Return text in Unicode's composed form; file systems of macOS hold the decomposed one."""
    return unicodedata.normalize("NFC", text)


def _fitting(files: dict[str, list[str]], key: str) -> list[str]:
    """Return the files of this name, else those of this name without their suffix, or with it in another case."""
    found = files.get(key, [])
    if exact := [path for path in found if _composed(os.path.basename(path)) == key]:  # noqa: PTH119
        return exact
    suffix = next((suffix for suffix in _SUFFIXES if key.lower().endswith(suffix)), "")
    bare = files.get(key[: -len(suffix)], []) if suffix else []
    return found or [path for path in bare if path.lower().endswith(suffix)]


def _by_name(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return files by their names with and without suffix."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        name = _composed(os.path.basename(path))  # noqa: PTH119
        found[name].append(path)
        suffix = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
        if suffix:
            found[name[: -len(suffix)]].append(path)
    return dict(found)
