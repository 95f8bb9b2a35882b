"""Predictions and features of any number of inputs in a file, by one process or several."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from zoo.data.table import Table, names_of
from zoo.engine.distributed.rank_consistency import fingerprint
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.distributed.rendezvous import joined
from zoo.engine.inference.output_blocks import Block, InferenceOptions, blocks_of, run_blocks, warn_of_errors
from zoo.engine.inference.predict import opened
from zoo.engine.inference.result_columns import Column, Columns, Decoder, decoder_of, result_columns
from zoo.engine.output.formats import check_suffix, to_arrow
from zoo.engine.output.parts import PartFolder
from zoo.engine.runtime.device import choose_device, choose_precision
from zoo.engine.runtime.signals import StopFlag, Stopped, stop_signals
from zoo.errors import InterruptedRunError, OutputExistsError, OutputPermissionError, ZooError
from zoo.models.task_model import TaskModel
from zoo.tasks.thresholds import Wanted
from zoo.util.versions import versions

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("zoo")

What = Literal["predictions", "features"]
SUFFIXES: Mapping[str, tuple[str, ...]] = MappingProxyType({"predictions": (".csv", ".parquet"), "features": (".npz", ".csv", ".parquet")})
TIMEOUT = 86400.0  # seconds that a process waits at the end for the slowest one; the launcher ends all if one fails
NAMES = 10_000  # names that are hashed at once
_NONE: Mapping[str, str] = MappingProxyType({})


class Written(NamedTuple):
    """A result in a file.

    Attributes:
        path: The file.
        table: The inputs.
        skipped: Number of those that could not be read.
    """

    path: Path
    table: Table
    skipped: int


def write_results(
    model: TaskModel,
    inputs: Any,
    out: str | Path,
    what: What,
    *,
    split: str | None = None,
    columns: Mapping[str, str] = _NONE,
    root: str | PathLike[str] | None = None,
    prompt_name: str | None = None,
    thresholds: Wanted | None = None,
    overwrite: bool = False,
    resume: bool = False,
    **options: Any,
) -> Written:
    """Write the predictions or the features of any number of inputs to a file.

    Blocks of rows are written to ``OUT.parts/`` as they are computed, and joined at the end. All processes of a launcher share
    them; the first one joins. The file is the same, bit for bit, however many processes there were and however often it was cut off.

    Args:
        model: The model.
        inputs: As for ``predict``.
        out: A ``.csv`` or ``.parquet`` file, for features also ``.npz``.
        what: ``predictions`` or ``features``.
        split: As for ``predict``.
        columns: As for ``predict``.
        root: As for ``predict``.
        prompt_name: As for ``predict_proba``.
        thresholds: As for ``predict``.
        overwrite: Replace a file, once the new one is whole, and drop the parts of a run that was cut off.
        resume: Go on with a run that was cut off; where there is none, begin.
        **options: Fields of ``InferenceOptions``.

    Raises:
        OutputExistsError: If the file exists, or parts of a run that was cut off.
        SavedModelError: If the run that is resumed had another model, other inputs or options.
        DiskFullError: If there is no room.
        InterruptedRunError: After Ctrl-C or SIGTERM.
    """
    chosen, parts = InferenceOptions(**options), PartFolder(check_suffix(Path(out), SUFFIXES[what]))
    decoder = decoder_of(model, thresholds)
    with joined(chosen.device, TIMEOUT) as ranks, stop_signals() as stop:
        with ranks.together():
            table = opened(model, inputs, split=split, columns=columns, root=root, prompt_name=prompt_name, missing_ok=chosen.skip)
            if ranks.main:
                _refuse_existing(parts.out, overwrite=overwrite)
                parts.claim(_record(model, table, decoder, chosen, what), overwrite=overwrite, resume=resume)
        try:
            skipped = _write(model, table, decoder, parts, chosen, what, ranks, stop)
        finally:
            parts.release()
    return Written(parts.out, table, skipped)


def _write(
    model: TaskModel,
    table: Table,
    decoder: Decoder,
    parts: PartFolder,
    options: InferenceOptions,
    what: What,
    ranks: Ranks,
    stop: StopFlag,
) -> int:
    """Write this rank's share of the missing parts, then join all; return how many inputs were skipped."""
    blocks = blocks_of(len(table), options.batch_size)
    missing = ranks.gather([block.start for block in parts.missing(blocks)] if ranks.main else [])[0]
    mine = [block for block in blocks if block.start in set(missing[ranks.rank :: ranks.count])]

    def each(block: Block) -> None:
        parts.write(block.rows, to_arrow(_columns(decoder, table, block, what)))

    def poll() -> None:
        stop.poll()
        ranks.heed()

    with _telling_what_is_done(parts, len(table), stop, ranks):
        with ranks.together():
            if mine:
                run_blocks(model, table, model if what == "predictions" else model.embed_batch, options, each=each, blocks=mine, poll=poll)
        with ranks.together():
            skipped = _join(table, parts, blocks, skip=options.skip) if ranks.main else 0
    return int(ranks.gather(skipped)[0])


def _join(table: Table, parts: PartFolder, blocks: list[range], *, skip: bool) -> int:
    errors: dict[int, str] = {}
    number = 0
    if skip:
        for block, part in zip(blocks, parts.tables(blocks, ("error",)), strict=True):
            texts = part["error"].to_pylist() if "error" in part.column_names else []
            found = {block.start + place: text for place, text in enumerate(texts) if text is not None}
            number += len(found)
            errors = errors or found
        warn_of_errors(table, errors, number, "have empty values")
    names = next(iter(parts.tables(blocks[:1], ()))).column_names
    parts.join(blocks, [name for name in names if skip or name != "error"])
    parts.remove()
    return number


def _columns(decoder: Decoder, table: Table, block: Block, what: What) -> Columns:
    if what == "predictions":
        return result_columns(decoder, table, block.rows, block.outputs, block.errors)
    return {
        "input": Column("text", names_of(table.inputs, block.rows)),
        "features": Column("vector", block.outputs),
        "error": Column("text", [block.errors.get(row) for row in block.rows]),
    }


def _record(model: TaskModel, table: Table, decoder: Decoder, options: InferenceOptions, what: What) -> dict[str, Any]:
    """Return what a result depends on."""
    where = choose_device(options.device)
    described = [model.spec.name, model.task, model.head_name, model.head_options, repr(model.inputs), decoder.names, fingerprint(model)]
    inputs = hashlib.sha256()
    for start in range(0, len(table), NAMES):
        inputs.update(
            "\n".join(names_of(table.inputs, range(start, min(start + NAMES, len(table))))).encode(errors="surrogateescape") + b"\n"
        )
    used = {name: value for name, value in asdict(options).items() if name in ("window", "overflow", "image_size", "batch_size")}
    used |= {"device": where.type, "precision": choose_precision(options.precision, where), "thresholds": decoder.thresholds}
    return {
        "what": what,
        "model": hashlib.sha256(repr(described).encode()).hexdigest(),
        "inputs": inputs.hexdigest(),
        "rows": len(table),
        "options": used,
        "versions": versions(),
    }


def _refuse_existing(out: Path, *, overwrite: bool) -> None:
    if out.is_dir():
        raise OutputExistsError(f"{str(out)!r} is a folder; give the name of a file")
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{str(out)!r} exists; choose another file, or pass overwrite=True (--overwrite)")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputPermissionError(f"{str(out)!r} cannot be written: {error.strerror}; choose another file") from error


@contextmanager
def _telling_what_is_done(parts: PartFolder, rows: int, stop: StopFlag, ranks: Ranks) -> Iterator[None]:
    """Add to an error what is done, and how to go on."""
    try:
        yield
    except Stopped:
        signal = StopFlag()
        signal.signum = max(ranks.gather(stop.signum))
        error = InterruptedRunError(f"stopped by {signal.name}; {_done(parts, rows)}")
        error.exit_code = signal.exit_code
        raise ranks.known(error) from None
    except ZooError as error:
        if parts.folder.exists():
            error.args = (f"{error}. {_done(parts, rows)[0].upper()}{_done(parts, rows)[1:]}",)
        raise


def _done(parts: PartFolder, rows: int) -> str:
    return f"{parts.state(rows)} are done, in {str(parts.folder)!r}; the same with resume=True (--resume) goes on"
