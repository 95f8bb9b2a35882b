"""The finished parts of a result, in a folder beside it, so that a run that was cut off can go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.engine.output.formats import staged, write_joined
from zoo.engine.rundir.lock import NAME as LOCK
from zoo.engine.rundir.lock import lock_folder, unlock_folder
from zoo.errors import DataError, DiskFullError, OutputExistsError, OutputPermissionError, SavedModelError, count, fault_list
from zoo.util.atomic_write import remove_parts, room_for, write_json
from zoo.util.differences import record_differences

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]  # ships no types

RECORD = "parts.json"
CHANGED = {
    "model": "the model is another one than before",
    "inputs": "the inputs are others than before",
    "files": "files of the inputs have changed since (their size or time of modification)",
}


@dataclass(frozen=True)
class PartFolder:
    """The parts of one result: a Parquet file for each block of rows, named by its first row.

    Attributes:
        out: The file that they are joined to.
    """

    out: Path

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return self.out.with_name(self.out.name + ".parts")

    def claim(self, record: Mapping[str, Any], *, overwrite: bool, resume: bool) -> None:
        """Lock the folder for this process, with the parts of an earlier run if it is resumed.

        Args:
            record: What the result depends on.
            overwrite: Drop the parts of an earlier run, unless it is resumed.
            resume: Go on with an earlier run; where there is none, begin.

        Raises:
            OutputExistsError: If there are parts of a run that was cut off, and neither option is set.
            SavedModelError: If the run that is resumed had another model, other inputs or options.
            RunLockedError: If another process writes them.
        """
        before = self._record()
        before = before if self.any() else None  # without a part there is nothing to go on with
        if before is not None and not (overwrite or resume):
            raise OutputExistsError(
                f"{str(self.folder)!r} holds the first {self.state(before['rows'])} of a run that was cut off; "
                "go on with resume=True (--resume), or start anew with overwrite=True (--overwrite)"
            )
        existed = self.folder.exists()
        try:
            with room_for(self.folder, len(str(record))):
                self.folder.mkdir(exist_ok=True)
                lock_folder(self.folder)
        except PermissionError as error:
            raise OutputPermissionError(f"{str(self.folder)!r} cannot be written: {error.strerror}; choose another file") from error
        except DiskFullError:
            if not existed:
                with suppress(OSError):  # not made, or another process uses it
                    self.folder.rmdir()
            raise
        try:
            remove_parts(self.folder)
            if before is not None and resume:
                self._check_same(before, record)
            else:
                for path in self.folder.glob("*.parquet"):
                    path.unlink()
            write_json(self.folder / RECORD, record)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Unlock the folder that this process has claimed, and remove it if it has no part."""
        if not self.any():
            (self.folder / RECORD).unlink(missing_ok=True)
        unlock_folder(self.folder)
        with suppress(OSError):  # it has parts
            self.folder.rmdir()

    def any(self) -> bool:
        """Return whether there is a part."""
        return next(self.folder.glob("*-*.parquet"), None) is not None

    def remove(self) -> None:
        """Remove the folder, after its parts were joined."""
        unlock_folder(self.folder)
        shutil.rmtree(self.folder)

    def missing(self, blocks: Iterable[range]) -> list[range]:
        """Return the blocks without a part."""
        return [block for block in blocks if not self._path(block).is_file()]

    def write(self, block: range, table: pa.Table) -> None:
        """Write the part of a block, atomically."""
        import pyarrow.parquet as pq  # type: ignore[import-untyped]  # ships no types

        with staged(self._path(block), table.nbytes) as stream:
            pq.write_table(table, stream)

    def join(self, blocks: Sequence[range], columns: Sequence[str]) -> None:
        """Write the parts of all blocks as one file, atomically."""
        size = sum(self._path(block).stat().st_size for block in blocks)
        write_joined(self.out, lambda: self.tables(blocks, columns), size)

    def tables(self, blocks: Iterable[range], columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the parts of blocks.

        Raises:
            DataError: If one is damaged.
        """
        import pyarrow.parquet as pq

        for block in blocks:
            path = self._path(block)
            try:
                table = pq.read_table(path)
            except (ValueError, OSError) as error:  # pyarrow's own errors are ValueError
                raise DataError(f"{str(path)!r} cannot be read ({error}); remove it, and go on with resume=True (--resume)") from error
            yield table.select([name for name in table.column_names if name in columns]) if columns else table

    def state(self, rows: int) -> str:
        """Return how many rows are done, for messages."""
        done = sum(int(path.stem.partition("-")[2]) - int(path.stem.partition("-")[0]) for path in self.folder.glob("*-*.parquet"))
        return f"{done} of {count(rows, 'row')}"

    def _path(self, block: range) -> Path:
        return self.folder / f"{block.start:012}-{block.stop:012}.parquet"

    def _record(self) -> dict[str, Any] | None:
        path = self.folder / RECORD
        if not path.is_file() and self.folder.exists() and not all(_is_passing(entry) for entry in self.folder.iterdir()):
            raise OutputExistsError(f"{str(self.folder)!r} is in the way, and holds no parts of a result; move it, or choose another file")
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return {**found, "rows": int(found["rows"])}
        except (ValueError, KeyError, TypeError) as error:
            raise SavedModelError(f"{str(path)!r} cannot be read ({error}); remove {str(self.folder)!r} and start anew") from error

    def _check_same(self, before: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        if faults := differences(before, record):
            remedy = "Give the same as before, or start anew with overwrite=True (--overwrite)"
            raise SavedModelError(fault_list(f"the run in {str(self.folder)!r} cannot go on:", faults, remedy))


def differences(before: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """Return in what a record of a run differs from that of an earlier one, in words."""
    now = json.loads(json.dumps(record))
    if now["options"]["on_error"] == "skip":  # what stopped there may be skipped; what was skipped has no result
        before = {**before, "options": {**before.get("options", {}), "on_error": "skip"}}
    return [_difference(name, before.get(name), now.get(name)) for name in {**before, **now} if before.get(name) != now.get(name)]


def _is_passing(entry: Path) -> bool:
    """Return whether a file is one that a run which was killed at its start may leave."""
    return entry.name == LOCK or entry.name.endswith(".part")


def _difference(name: str, before: Any, now: Any) -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return "; ".join(line for key in keys for line in record_differences(key, before.get(key), now.get(key)))
    return CHANGED.get(name, f"{name} was {before!r} and is {now!r}")
