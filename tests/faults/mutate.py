"""Safetensors files with broken headers, by hand and by chance."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

DATA = bytes(range(24))
GOOD = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "b": {"dtype": "U8", "shape": [8], "data_offsets": [16, 24]}}


def file(header: object, data: bytes = DATA, *, length: int | None = None) -> bytes:
    """Return a file with this header: JSON, or bytes as they are."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def changed(**fields: Any) -> bytes:
    return file(GOOD | {"a": GOOD["a"] | fields})


def malformed() -> dict[str, bytes]:
    """Return 28 files, each of which breaks one rule of the format or of ours."""
    good = json.dumps(GOOD).encode()
    return {
        "empty": b"",
        "seven bytes": b"\x00" * 7,
        "length without header": struct.pack("<Q", 64),
        "length above the file": file(GOOD, length=10_000),
        "length of 2**63": file(GOOD, length=2**63),
        "length above 10 MB": file(b"{" + b" " * 10_000_001 + b"}", b""),
        "no JSON": file(b"{not json}"),
        "no object": file(b"[1, 2]", b""),
        "leading space": file(b" " + good),
        "trailing newline": file(good + b"\n"),
        "second document": file(good + good),
        "not UTF-8": file(good.replace(b'"a"', b'"\xff"')),
        "minus nought": file(good.replace(b"[0,", b"[-0,", 1)),
        "key twice": file(good[:-1] + b', "b": ' + json.dumps(GOOD["b"]).encode() + b"}"),
        "field twice": file(good.replace(b'"dtype": "F32"', b'"dtype": "F32", "dtype": "F32"')),
        "unknown field": changed(extra=1),
        "missing field": file({"a": {"dtype": "F32", "shape": [6]}}),
        "unknown dtype": changed(dtype="F128"),
        "shape with a float": changed(shape=[2.0, 2]),
        "shape with NaN": file(good.replace(b"[2, 2]", b"[NaN, 2]")),
        "shape with a boolean": changed(shape=[True, 4]),
        "negative dimension": changed(shape=[-2, -2]),
        "monstrous shape": changed(shape=[2**40, 2**40, 0], data_offsets=[0, 0]),
        "offsets too wide": changed(data_offsets=[0, 20]),
        "offsets backwards": changed(data_offsets=[16, 0]),
        "overlap": file(GOOD | {"b": GOOD["b"] | {"data_offsets": [8, 16]}}),
        "gap": file({"b": GOOD["b"]}),
        "trailing bytes": file(GOOD, DATA + b"more"),
        "metadata that is no text": file(GOOD | {"__metadata__": {"format": 1}}),
    }


def many_empty_tensors(number: int) -> bytes:
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return file(("{" + ",".join(f'"{index}":{entry}' for index in range(number)) + "}").encode(), b"")


def mutated(chance: random.Random) -> bytes:
    """Return a good file after one to four random changes of its header."""
    raw = bytearray(file(GOOD))
    end = len(raw) - len(DATA)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(end)
        kind = chance.randrange(4)
        if kind == 0:
            raw[at] = chance.randrange(256)
        elif kind == 1:
            raw[at] = chance.choice(b'0123456789[]{},:" ')
        elif kind == 2:
            del raw[at]
            end -= 1
        else:
            raw.insert(at, chance.choice(b'0123456789[]{},:"-.eE'))
            end += 1
    return bytes(raw)
