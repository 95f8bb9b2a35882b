"""Arrays of blocks of rows in a folder, so that a check that was stopped goes on, and a repeated one is cheap."""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np

from zoo.data.table import Array, Table
from zoo.engine.cache.feature_memo import table_key
from zoo.util.atomic_write import room_for

Arrays: TypeAlias = "dict[str, Array]"
Report: TypeAlias = Callable[[int], None]
"""Called with the number of rows done; may raise to stop."""
ROWS = 512


class Kept:
    """Results by the content of their rows.

    Args:
        folder: Where they are; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str) -> Arrays | None:
        """Return what was put under a key; None if nothing whole was."""
        if self._folder is None or not key:
            return None
        with suppress(OSError, ValueError, EOFError, KeyError), np.load(self._file(key), allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
        return None

    def put(self, key: str, arrays: Arrays) -> None:
        """Write arrays under a key, atomically; nothing without a key."""
        if self._folder is None or not key:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's types take no mapping of arrays
        path = self._file(key)
        stage = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            with room_for(path, buffer.tell()):
                stage.write_bytes(buffer.getvalue())
            stage.replace(path)
        finally:
            stage.unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"


def blockwise(table: Table, what: str, compute: Callable[[Table], Arrays], kept: Kept, report: Report) -> Arrays:
    """Return arrays with a row per sample, computed in blocks; blocks that are kept are not computed again.

    Args:
        table: The rows.
        what: What the arrays depend on beside the samples; empty for what must not be kept.
        compute: From some rows to arrays with a row each.
        kept: Where blocks are kept.
        report: Called after each block.
    """
    parts: list[Arrays] = []
    for rows in _blocks(len(table)):
        some = table.select(rows)
        samples = table_key(some) if what else ""
        key = f"{what}/{samples}" if samples else ""
        found = kept.get(key)
        if found is None:
            found = compute(some)
            kept.put(key, found)
        parts.append(found)
        report(rows.stop)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _blocks(rows: int) -> Iterator[range]:
    return (range(start, min(start + ROWS, rows)) for start in range(0, rows, ROWS))
