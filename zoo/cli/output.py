"""Printed output of commands: plain tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from zoo.errors import OutputExistsError, OutputPermissionError


class Output(NamedTuple):
    """The real standard output; while JSON is asked for, all else that is printed goes to standard error."""

    stream: TextIO

    def json(self, value: Any) -> None:
        """Write one JSON document; the items of a list stand on lines of their own."""
        if isinstance(value, list):  # an indented document would be written by json's slow path
            text = "[" + ",\n ".join(map(json.JSONEncoder(default=_plain).encode, value)) + "]"
        else:
            text = json.dumps(value, indent=2, default=_plain)
        print(text, file=self.stream)


def table(rows: Iterable[Sequence[object]], header: Sequence[str], right: Iterable[int] = ()) -> str:
    """Return aligned columns; those numbered in ``right`` are right-aligned."""
    cells = [[str(value) for value in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    pads = [str.rjust if index in set(right) else str.ljust for index in range(len(header))]
    return "\n".join("  ".join(pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True)).rstrip() for row in cells)


def thousands(number: float) -> str:
    """Return a number of parameters as ``25.6M`` or ``12.3k``, or nothing where it is unknown."""
    return f"{number / 1e6:.1f}M" if number >= 1e5 else f"{number / 1e3:.1f}k" if number else ""


def figures(metrics: Mapping[str, float]) -> str:
    """Return metrics as ``accuracy 0.9608, loss 0.1423``."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def claim_file(path: Path, suffix: str, *, overwrite: bool) -> Path:
    """Prove that a file can be written, before anything is computed for it.

    Args:
        path: The file; its folder is made.
        suffix: Added to the name where it is missing.
        overwrite: Whether the file may exist.

    Returns:
        The path with the suffix.

    Raises:
        OutputExistsError: If it is a folder, or exists and may not be overwritten.
        OutputPermissionError: If it cannot be written.
    """
    target = path if path.suffix == suffix else path.with_name(path.name + suffix)
    if target.is_dir():
        raise OutputExistsError(f"{str(target)!r} is a folder; give --out the name of a file")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{str(target)!r} exists; choose another --out, or pass --overwrite")
    existed = target.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.open("ab").close()  # leaves what is there as it is
        if not existed:
            target.unlink()
    except OSError as error:
        raise OutputPermissionError(f"{str(target)!r} cannot be written: {error.strerror}; choose another --out") from error
    return target


def show_log() -> None:
    """Show what the library has to say about a run, on standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("zoo").setLevel(logging.INFO)


class HeldLog(logging.Handler):
    """Records of the library's log that are told later."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self._records.append(record)

    def tell(self) -> None:
        """Log what was held, as far as the log is shown by now."""
        for record in self._records:
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        self._records.clear()


@contextmanager
def log_held() -> Iterator[HeldLog]:
    """Hold back what the library logs while the context is open."""
    log, held = logging.getLogger("zoo"), HeldLog()
    before = log.level, log.propagate, log.handlers
    log.setLevel(logging.INFO)
    log.propagate, log.handlers = False, [held]
    try:
        yield held
    finally:
        log.setLevel(before[0])
        log.propagate, log.handlers = before[1:]


def _plain(value: Any) -> Any:
    """Turn numpy values and paths into what JSON knows."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
