"""Cache of plugin listings per installed distribution, so that later listings import no plugin.

One JSON file per plugin below the user's cache folder. It holds declarations only. Its ``key`` covers the distribution and
its files, the versions of its requirements, and zoo itself.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo import declare
from zoo.declare import BackboneSpec, Features, HeadSpec, Image, Text, Volume, Weights
from zoo.plugins.loader import Plugin
from zoo.plugins.policy import OWN
from zoo.util.atomic_write import cache_folder, write_text

FORMAT = 1
KINDS = {kind.__name__: kind for kind in (Image, Text, Volume, Features)}
SHARED = ("layers", "inputs", "features", "options", "metrics")  # many backbones share one, which is stored once
FIELDS = tuple(f.name for f in dataclasses.fields(BackboneSpec))
MOST_FILES = 2000  # of a plugin installed in place; larger ones are imported each time


class Listed(NamedTuple):
    """The listing of a plugin, and the names of its hooks."""

    backbones: list[BackboneSpec]
    heads: list[HeadSpec]
    hooks: tuple[str, ...]


def recall(plugin: Plugin) -> Listed | None:
    """Return the cached listing of a plugin, or None if it is missing or out of date."""
    path = _file(plugin)
    if path is None:
        return None
    try:
        document = json.loads(_trusted(path))
        if document["key"] != _key(plugin):
            return None
        return Listed(*_decode(document), tuple(document["hooks"]))
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
        document = {"key": key, "hooks": list(listed.hooks), **_encode(listed)}
        text = json.dumps(document, separators=(",", ":"))
        if Listed(*_decode(json.loads(text)), listed.hooks) != listed:  # such as a live object in a declaration
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)  # other users can write to the folder
        write_text(path, text, private=True)
    except Exception:  # such as an odd declaration or a full disk
        return False
    return True


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
    about = [FORMAT, list(_stamp(Path(declare.__file__)) or ()), list(sys.version_info[:3])]
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


def _encode(listed: Listed) -> dict[str, Any]:
    tables: dict[str, dict[str, int]] = {name: {} for name in SHARED}
    rows = []
    for spec in listed.backbones:
        row = {name: getattr(spec, name) for name in FIELDS}
        for name in SHARED:
            text = json.dumps(_plain(row[name]))
            row[name] = tables[name].setdefault(text, len(tables[name]))
        row["weights"] = dataclasses.asdict(spec.weights) if spec.weights else None  # by hand, for speed with thousands of them
        rows.append(list(row.values()))
    shared = {name: [json.loads(text) for text in table] for name, table in tables.items()}
    heads = [dataclasses.asdict(head) for head in listed.heads]
    return {"fields": FIELDS, "shared": shared, "backbones": rows, "heads": heads}


def _decode(document: Mapping[str, Any]) -> tuple[list[BackboneSpec], list[HeadSpec]]:
    if tuple(document["fields"]) != FIELDS:
        raise ValueError("written by another version")
    flat = {"flat"}
    shared = {
        name: [value["flat"] if isinstance(value, dict) and value.keys() == flat else _rich(value) for value in table]
        for name, table in document["shared"].items()
    }
    places = [(FIELDS.index(name), shared[name]) for name in SHARED]
    backbones = []
    for row in document["backbones"]:
        for place, table in places:
            row[place] = table[row[place]]
        if row[_WEIGHTS]:
            row[_WEIGHTS] = Weights(**row[_WEIGHTS])
        backbones.append(BackboneSpec(**dict(zip(FIELDS, row, strict=True))))
    return backbones, [HeadSpec(**head) for head in document["heads"]]


_WEIGHTS = FIELDS.index("weights")


def _plain(value: Any) -> Any:
    """Convert a value for JSON, marking tuples and declarations; ``json`` refuses other types."""
    if type(value).__name__ in KINDS and type(value) is KINDS[type(value).__name__]:
        return {type(value).__name__: {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}}
    if isinstance(value, tuple):
        return {"()": [_plain(item) for item in value]}
    if isinstance(value, Mapping):
        if all(type(key) is str and type(item) in (str, int, float, bool) for key, item in value.items()):
            return {"flat": dict(value)}  # unchanged, as most options and metrics
        return {"{}": [[_plain(key), _plain(item)] for key, item in value.items()]}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _rich(value: Any) -> Any:
    if isinstance(value, dict):
        ((mark, inner),) = value.items()
        if mark == "flat":
            return inner
        if mark == "()":
            return tuple(_rich(item) for item in inner)
        if mark == "{}":
            return {_rich(key): _rich(item) for key, item in inner}
        return KINDS[mark](**{name: _rich(item) for name, item in inner.items()})
    return [_rich(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
