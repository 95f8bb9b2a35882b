"""Printed output of commands: plain tables, or one JSON document."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from zoo.cli.output.wording import as_typed
from zoo.errors import OptionError, OutputExistsError, OutputPermissionError, printable
from zoo.util.numbers import interval_text


class Output(NamedTuple):
    """The real standard output; with ``--json`` all other prints go to standard error."""

    stream: TextIO

    def json(self, value: Any) -> None:
        """Write one JSON document, with one line per item of a list."""
        if isinstance(value, list):  # json is slow with an indent
            text = "[" + ",\n ".join(map(json.JSONEncoder(default=_plain).encode, value)) + "]"
        else:
            text = json.dumps(value, indent=2, default=_plain)
        print(text, file=self.stream)

    def line(self, value: Mapping[str, Any] | Sequence[str]) -> None:
        """Write one line, a JSON object or cells separated by tabs, which is there for a reader at once."""
        if isinstance(value, Mapping):
            text = json.dumps(value, default=_plain)
        else:
            text = "\t".join(printable(cell).replace("\n", "\\n").replace("\t", "\\t") for cell in value)
        print(text, file=self.stream, flush=True)


def table(rows: Iterable[Sequence[object]], header: Sequence[str], right: Iterable[int] = ()) -> str:
    """Return aligned columns; ``right`` are the indices of right-aligned ones."""
    cells = [[cell_text(value) for value in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    pads = [str.rjust if index in set(right) else str.ljust for index in range(len(header))]
    return "\n".join("  ".join(pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True)).rstrip() for row in cells)


def cell_text(value: object) -> str:
    """Return a value as one line for a terminal."""
    return printable(str(value)).replace("\n", "\\n")


def format_parameters(number: float) -> str:
    """Return a number of parameters as ``25.6M`` or ``12.3k``; empty if it is unknown."""
    return f"{number / 1e6:.1f}M" if number >= 1e5 else f"{number / 1e3:.1f}k" if number else ""


def format_metrics(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return metrics as text by name: ``0.9608``, or ``0.911 [0.862, 0.949]`` where there is an interval (``NAME_low``, ``NAME_high``)."""
    found = {}
    for name, value in metrics.items():
        found[name] = interval_text(name, value, metrics.get(f"{name}_low"), metrics.get(f"{name}_high"))
    ends = {f"{name}_{end}" for name in metrics for end in ("low", "high") if {f"{name}_low", f"{name}_high"} <= metrics.keys()}
    return {name: text for name, text in found.items() if name not in ends}


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Return metrics as ``accuracy 0.9608, loss 0.1423``."""
    return ", ".join(f"{name} {text}" for name, text in format_metrics(metrics).items())


def claim_file(path: Path, *suffixes: str, overwrite: bool, option: str = "--out") -> Path:
    """Check that a file can be written, before anything is computed for it.

    Args:
        path: The file; its folder is created.
        *suffixes: Known endings; with a single one it is added if it is missing, else the first is where the name has none.
        overwrite: Whether the file may exist.
        option: The option that names it, for messages.

    Returns:
        The path with the suffix.

    Raises:
        OptionError: If it is empty, has none of several endings, or is a pipe or a device.
        OutputExistsError: If it is a folder, or exists and may not be overwritten.
        OutputPermissionError: If it cannot be written.
    """
    path = Path(os.path.expanduser(path))  # noqa: PTH111  # Path's method raises without a home
    if not path.name or "\0" in str(path):
        raise OptionError(f"{option} names no file{'' if not path.name else f': {str(path)!r}'}; give it the name of a file")
    if str(path) == "-" or (path.exists() and not path.is_file() and not path.is_dir()):
        raise OptionError(f"{option} {str(path)!r} is no file on a disk, and results are written as a whole; give it the name of a file")
    known = path.suffix.lower() in suffixes
    if not known and path.suffix and len(suffixes) > 1:
        raise OptionError(f"{option} {str(path)!r} ends with {path.suffix}; it can end with: {', '.join(suffixes)}")
    target = path if known else path.with_name(path.name + suffixes[0])
    if target.is_dir():
        raise OutputExistsError(f"{str(target)!r} is a folder; give {option} the name of a file")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{str(target)!r} exists; choose another {option}, or pass --overwrite")
    existed = target.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.open("ab").close()  # does not change an existing file
        if not existed:
            target.unlink()
    except OSError as error:
        raise OutputPermissionError(f"{str(target)!r} cannot be written: {error.strerror}; choose another {option}") from error
    return target


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return as_typed(printable(super().format(record)))


def show_log() -> None:
    """Show the library's log of a run on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("zoo").setLevel(logging.INFO)


def plain_warnings() -> None:
    """Show warnings on standard error, where a command shows no log, in the same form as its lines."""
    if logging.lastResort:
        logging.lastResort.setFormatter(_Printable("%(message)s"))


class DeferredLog(logging.Handler):
    """Buffered records of the library's log, for ``replay``."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Buffer a record."""
        self._records.append(record)

    def replay(self) -> None:
        """Log the buffered records at the current level of the log."""
        for record in self._records:
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        self._records.clear()


@contextmanager
def deferred_log() -> Iterator[DeferredLog]:
    """Buffer what the library logs while the context is open; log it after all if an error ends it."""
    log, deferred = logging.getLogger("zoo"), DeferredLog()
    before = log.level, log.propagate, log.handlers
    log.setLevel(logging.INFO)
    log.propagate, log.handlers = False, [deferred]

    def end() -> None:
        log.setLevel(before[0])
        log.propagate, log.handlers = before[1:]

    try:
        yield deferred
    except BaseException:
        end()
        deferred.replay()
        raise
    end()


def _plain(value: Any) -> Any:
    """Convert numpy values and paths to JSON types."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
