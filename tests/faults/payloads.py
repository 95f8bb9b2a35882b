"""Checkpoints that would leave a marker file behind if anything ran their code."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import runpy
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class Module(nn.Module):
    """A whole module, pickled with its class, as ``torch.save(model)`` does."""

    def __init__(self, payload: Calls) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.payload = payload


def touch(marker: Path) -> Calls:
    return Calls(os.system, f"touch '{marker}'")


def saved(content: object, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def stack_global(marker: Path) -> bytes:
    """``getattr(importlib.import_module("os"), "system")(…)`` by STACK_GLOBAL opcodes, with no name of ``os.system`` in one piece."""

    def text(value: str) -> bytes:
        raw = value.encode()
        return pickle.SHORT_BINUNICODE + bytes([len(raw)]) + raw

    def named(module: str, name: str) -> bytes:
        return text(module) + text(name) + pickle.STACK_GLOBAL

    module = named("importlib", "import_module") + text("os") + pickle.TUPLE1 + pickle.REDUCE
    function = named("builtins", "getattr") + module + text("system") + pickle.TUPLE2 + pickle.REDUCE
    return pickle.PROTO + b"\x04" + function + text(f"touch '{marker}'") + pickle.TUPLE1 + pickle.REDUCE + pickle.STOP


def patched_archive(content: bytes, *, crc: int | None = None, flags: int | None = None) -> bytes:
    """Write other checksums or flags into every header of a zip archive."""
    raw = bytearray(content)
    for signature, flags_at, crc_at in ((b"PK\x03\x04", 6, 14), (b"PK\x01\x02", 8, 16)):
        at = raw.find(signature)
        while at >= 0:
            if crc is not None:
                struct.pack_into("<I", raw, at + crc_at, crc)
            if flags is not None:
                struct.pack_into("<H", raw, at + flags_at, flags)
            at = raw.find(signature, at + 4)
    return bytes(raw)


def payloads(marker: Path) -> dict[str, bytes]:
    """Return files by name; each touches ``marker`` if its code runs."""
    call = touch(marker)
    mixed = {"state_dict": {"weight": torch.ones(2)}, "epoch": 3, "more": call}
    return {
        "os.system": saved(call),
        "exec, legacy format": saved(Calls(builtins.exec, f"open({str(marker)!r}, 'w').close()"), legacy=True),
        "bare pickle": pickle.dumps({"weight": [1.0], "x": call}),
        "whole module": saved(Module(call)),
        "STACK_GLOBAL": stack_global(marker),
        "runpy": saved(Calls(runpy._run_code, f"open({str(marker)!r}, 'w').close()", {})),  # type: ignore[attr-defined]
        "broken checksums": patched_archive(saved(call), crc=0),
        "encrypted flag": patched_archive(saved(call), flags=1),
        "beside tensors": saved(mixed),
        "inside an OrderedDict": saved(OrderedDict(weight=torch.ones(2), hook=call)),
    }


def control(marker: Path) -> None:
    """Run a payload in the way that nothing of ours does; it proves that the payloads would work."""
    pickle.loads(pickle.dumps(touch(marker)))
