"""Records of finished files of results, in the user's cache: what each was made of, for a run that is resumed after its end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from zoo.util.atomic_write import cache_folder, write_json


class Finished(NamedTuple):
    """A finished file.

    Attributes:
        record: What it depends on, see ``run_record``.
        skipped: Number of inputs that could not be read.
    """

    record: Mapping[str, Any]
    skipped: int


def finished_folder() -> Path:
    """Return the folder of the records."""
    return cache_folder() / "results"


def remember_finished(out: Path, record: Mapping[str, Any], skipped: int) -> None:
    """Write the record of a file that is whole; where the cache cannot be written, nothing is remembered."""
    with suppress(OSError):
        finished_folder().mkdir(parents=True, exist_ok=True)
        write_json(_path(out), {"out": str(out), "state": _state(out), "skipped": skipped, "record": record})


def find_finished(out: Path) -> Finished | None:
    """Return the record of a file; None if there is none, or the file was changed after it was written."""
    try:
        kept = json.loads(_path(out).read_text(encoding="utf-8"))
        return Finished(dict(kept["record"]), int(kept["skipped"])) if kept["state"] == _state(out) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def prune_finished(limit: float) -> None:
    """Remove the records that were written before a time.

    Args:
        limit: Seconds since 1970.
    """
    for path in finished_folder().glob("*.json"):
        with suppress(FileNotFoundError):  # another process removed it meanwhile
            if path.stat().st_mtime <= limit:
                path.unlink()


def _path(out: Path) -> Path:
    return finished_folder() / f"{hashlib.sha256(str(out.resolve()).encode(errors='surrogatepass')).hexdigest()[:32]}.json"


def _state(out: Path) -> list[int]:
    """Return the size in bytes of a file, and when it was modified."""
    state = out.stat()
    return [state.st_size, state.st_mtime_ns]
