"""Format of a cached listing: text of which one backbone can be read without the others.

The first line is a checksum of the rest, so a damaged file is noticed before anything of it is used. The second is a JSON object with
the key, the hooks, the heads and the names of all backbones. Then comes one JSON array per backbone, in the order of the names, and one
JSON value per line for those that backbones share: an array has the number of such a line in place of the value.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zoo.declare import BackboneSpec, Features, HeadSpec, Image, Pair, Text, Volume, Weights
from zoo.plugins.spec_list import SpecList

KINDS = {kind.__name__: kind for kind in (Image, Text, Volume, Features, Weights, BackboneSpec, Pair)}
FIELDS = tuple(f.name for f in dataclasses.fields(BackboneSpec))
_SHARED = tuple(FIELDS.index(name) for name in ("layers", "inputs", "features", "options", "metrics", "pair"))
_WEIGHTS = FIELDS.index("weights")
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Weights)}


class Listed(NamedTuple):
    """The listing of a plugin, and the names of its hooks."""

    backbones: SpecList
    heads: list[HeadSpec]
    hooks: tuple[str, ...]


def encode(listed: Listed, key: Sequence[Any]) -> str:
    """Return the text of a listing; ``key`` says what it was made of.

    Raises:
        TypeError: If a declaration holds what JSON cannot, such as a live object.
    """
    shared: dict[str, int] = {}
    rows = [_row(spec, shared) for spec in listed.backbones]
    heads = [dataclasses.asdict(head) for head in listed.heads]
    head = {"key": key, "fields": FIELDS, "hooks": listed.hooks, "heads": heads, "names": listed.backbones.names}
    body = "\n".join([_json(head), *rows, *shared])
    return f"{zlib.crc32(body.encode()):08x}\n{body}"


def decode(content: bytes, key: Sequence[Any]) -> Listed | None:
    """Return the listing, its backbones still to be read, or None if it has another key.

    Raises:
        ValueError: If the content is damaged, or of another format.
    """
    lines = content.split(b"\n")
    if lines[0] != b"%08x" % zlib.crc32(memoryview(content)[len(lines[0]) + 1 :]):
        raise ValueError("damaged, or of another format")
    head = json.loads(lines[1])
    if head["key"] != key:
        return None
    if tuple(head["fields"]) != FIELDS:
        raise ValueError("written by another version")
    names = head["names"]
    rows = _Rows(lines[2 : 2 + len(names)], lines[2 + len(names) :])
    return Listed(SpecList(names, rows.spec), [HeadSpec(**one) for one in head["heads"]], tuple(head["hooks"]))


class _Rows:
    """Lines of backbones, and those of the values that they share; each value is made once."""

    def __init__(self, rows: Sequence[bytes], shared: Sequence[bytes]) -> None:
        self._rows = rows
        self._shared = shared
        self._values: dict[int, Any] = {}

    def spec(self, number: int) -> BackboneSpec:
        """Return the spec of a line."""
        row = json.loads(self._rows[number])
        for place in _SHARED:
            row[place] = self._value(row[place])
        if row[_WEIGHTS] is not None:
            row[_WEIGHTS] = Weights(**row[_WEIGHTS])
        return BackboneSpec(**dict(zip(FIELDS, row, strict=True)))

    def _value(self, number: int) -> Any:
        if number not in self._values:
            self._values[number] = _rich(json.loads(self._shared[number]))
        return self._values[number]


def _row(spec: BackboneSpec, shared: dict[str, int]) -> str:
    row = [getattr(spec, name) for name in FIELDS]
    for place in _SHARED:
        row[place] = shared.setdefault(_json(_plain(row[place])), len(shared))
    if spec.weights:
        given = {name: getattr(spec.weights, name) for name in _DEFAULTS}
        row[_WEIGHTS] = {name: value for name, value in given.items() if value != _DEFAULTS[name]}
    return _json(row)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


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
