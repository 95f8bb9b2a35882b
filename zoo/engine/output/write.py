"""Predictions and features of any number of inputs in a file, by one process or several."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from zoo.data.table import Table, names_of
from zoo.data.texts.overflow import Overflow
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.distributed.rendezvous import joined
from zoo.engine.inference.all_outputs import TIMEOUT, check_same_inputs, log_overflow, sum_of, warn_of_errors
from zoo.engine.inference.decoding.decoder import Decoder, decoder_of
from zoo.engine.inference.decoding.result_columns import Column, Columns, result_columns
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.inference.opening import open_inputs
from zoo.engine.inference.output_blocks import Block, blocks_of, run_blocks
from zoo.engine.output.finished import find_finished, remember_finished
from zoo.engine.output.formats import check_suffix, to_arrow
from zoo.engine.output.parts import PartFolder, differences
from zoo.engine.output.run_record import run_record
from zoo.engine.runtime.signals import StopFlag, Stopped, stop_signals
from zoo.errors import (
    InterruptedRunError,
    OptionError,
    OutputExistsError,
    OutputPermissionError,
    SavedModelError,
    ZooError,
    count,
    fault_list,
)
from zoo.models.task_model import TaskModel
from zoo.tasks.thresholds import Wanted
from zoo.util.extras import require_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("zoo")

What = Literal["predictions", "features"]
SUFFIXES: Mapping[str, tuple[str, ...]] = MappingProxyType({"predictions": (".csv", ".parquet"), "features": (".npz", ".csv", ".parquet")})
SHOWN = 4  # inputs that cannot be read, in a message
_NONE: Mapping[str, str] = MappingProxyType({})


class Written(NamedTuple):
    """A result in a file.

    Attributes:
        path: The file.
        table: The inputs.
        skipped: Number of those that could not be read.
        was_there: Whether a run that was resumed had been finished before, so that nothing was computed.
    """

    path: Path
    table: Table
    skipped: int
    was_there: bool = False


def write_results(
    model: TaskModel,
    inputs: Any,
    out: str | Path,
    what: What,
    *,
    split: str | None = None,
    columns: Mapping[str, str] = _NONE,
    root: str | PathLike[str] | None = None,
    thresholds: Wanted | None = None,
    sets: float | None = None,
    ood: bool = False,
    top: int | None = None,
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
        thresholds: As for ``predict``.
        sets: As for ``predict``: a column ``set``, of a regression ``low`` and ``high``.
        ood: Whether predictions have a column ``ood``, see ``ood_score``.
        top: As for ``predict``: columns ``top_1``, ``top_1_probability`` and so on in place of ``probability_CLASS``.
        overwrite: Replace a file, once the new one is whole, and drop the parts of a run that was cut off.
        resume: Go on with a run that was cut off; where there is none, begin. The file of a finished run stays as it is, if its
            model, inputs and options are the same.
        **options: Fields of ``InferenceOptions``.

    Raises:
        OutputExistsError: If the file exists, or parts of a run that was cut off.
        SavedModelError: If the run that is resumed had another model, other inputs or options, whether it was cut off or finished.
        DiskFullError: If there is no room.
        InterruptedRunError: After Ctrl-C or SIGTERM.
        MissingExtraError: If pyarrow is not installed.
    """
    require_extra("tables", f"writing {str(out)!r}")
    chosen, parts = InferenceOptions(**options), PartFolder(check_suffix(Path(out), SUFFIXES[what]))
    if what == "features" and (sets is not None or ood or top is not None):
        raise OptionError("sets, ood and top are for predictions, not for features")
    decoder = decoder_of(model, thresholds, sets=sets, ood=ood, top=top, predicts=what == "predictions")
    with joined(chosen.device, TIMEOUT) as ranks, stop_signals() as stop:
        with ranks.together():
            table = open_inputs(model, inputs, chosen, split=split, columns=columns, root=root)
        check_same_inputs(ranks, table)
        record, done = dict[str, Any](), None
        with ranks.together():
            if ranks.main:
                record = run_record(model, table, decoder, chosen, what)
                done = _finished(parts, record, overwrite=overwrite) if resume else None
        done = ranks.gather(done)[0]
        if done is not None:
            log.info("%s: the %s of all %s are there; nothing is computed", parts.out, what, count(len(table), "input"))
            return Written(parts.out, table, done, was_there=True)
        with ranks.together():
            if ranks.main:
                _refuse_existing(parts.out, overwrite=overwrite)
                parts.claim(record, overwrite=overwrite, resume=resume)
        try:
            skipped = _write(model, table, decoder, parts, chosen, what, ranks, stop)
            if ranks.main:
                remember_finished(parts.out, record, skipped)
        finally:
            if ranks.main:
                parts.release()
    return Written(parts.out, table, skipped)


def _finished(parts: PartFolder, record: Mapping[str, Any], *, overwrite: bool) -> int | None:
    """Return how many inputs were skipped in the file of a finished run with this record; None if there is still something to do.

    Raises:
        OutputExistsError: If nothing is known of the run that wrote the file, and it may not be overwritten.
        SavedModelError: If it was another run, and its file may not be overwritten.
    """
    if not parts.out.is_file() or parts.any():
        return None
    kept, remedy = find_finished(parts.out), "choose another file, or pass overwrite=True (--overwrite)"
    faults = differences(kept.record, record) if kept else []
    if kept and not faults and record["known"]:
        return kept.skipped
    if overwrite:
        return None
    if kept is None or not faults:
        unknown = "it is not known what it was made of: "
        unknown += "its samples are known only once they are read" if kept else "it was changed, or written by another user or machine"
        raise OutputExistsError(f"{str(parts.out)!r} exists, and {unknown}; {remedy}")
    raise SavedModelError(fault_list(f"{str(parts.out)!r} is finished, and not of this run:", faults, f"{remedy[0].upper()}{remedy[1:]}"))


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
        ranks.raise_if_another_rank_failed()

    long = Overflow()
    with _telling_what_is_done(parts, len(table), stop, ranks):
        with ranks.together(), options.naming_skip():
            if mine:
                forward = decoder.forward(model) if what == "predictions" else model.embed_batch
                long = run_blocks(model, table, forward, options, each=each, blocks=mine, poll=poll)
        with ranks.together():
            skipped = _join(table, parts, blocks, skip=options.skip) if ranks.main else 0
    long = sum_of(long, ranks)
    if ranks.main:
        log_overflow(long, model, table, options)
    return int(ranks.gather(skipped)[0])


def _join(table: Table, parts: PartFolder, blocks: list[range], *, skip: bool) -> int:
    errors: dict[int, str] = {}
    number = 0
    if skip:
        for block, part in zip(blocks, parts.tables(blocks, ("row", "error")), strict=True):
            rows = part["row"].to_pylist() if "row" in part.column_names else block  # of words there is a row for each
            found = {row: text for row, text in zip(rows, part["error"].to_pylist(), strict=True) if text is not None}
            number += len(found)
            errors |= found if len(errors) < SHOWN else {}
        if number == len(table):
            parts.remove()  # there is nothing to go on with
        warn_of_errors(table, errors, number, "empty values")
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
        done = _done(parts, rows) if parts.any() else "nothing was written"
        error = InterruptedRunError(f"stopped by {signal.name}; {done}")
        error.exit_code = signal.exit_code
        raise ranks.known(error) from None
    except ZooError as error:
        if parts.any():
            error.args = (f"{error}. {_done(parts, rows)[0].upper()}{_done(parts, rows)[1:]}",)
        raise


def _done(parts: PartFolder, rows: int) -> str:
    return f"{parts.state(rows)} are done, in {str(parts.folder)!r}; the same with resume=True (--resume) goes on"
