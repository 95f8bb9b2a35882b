"""The commands predict and embed, which use a saved model."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.input_lines import STREAM, all_lines, is_stream, reads_texts
from zoo.cli.arguments.parser import Commands
from zoo.cli.arguments.pass_options import pass_options, pass_settings
from zoo.cli.arguments.saved_model import config_of
from zoo.cli.launch import launch_ranks
from zoo.cli.output.prediction_rows import more_names, predict_lines, predicted_rows, prediction_cells, table_cells
from zoo.cli.output.rank_errors import errors_once
from zoo.cli.output.stdout import Output, claim_file, table
from zoo.cli.start_up import uncollected
from zoo.engine.runtime.launch_env import launched, rank
from zoo.errors import OptionError, count, examples

if TYPE_CHECKING:
    from zoo.models.task_model import TaskModel

MODEL = "the folder of a saved model or run"
INPUTS = "images or texts, or one folder or table of them"
LINES = f"{INPUTS}; {STREAM} alone reads a path or a text per line of standard input"
FILES = {"predictions": (".csv", ".parquet"), "features": (".npz", ".csv", ".parquet")}
PROCESSES = "share the inputs among so many processes on this machine"
THRESHOLDS = "multi-label: probability above which labels are predicted, 0.5 or cat=0.3,dog=0.7; else those of the model"

SETS = "the classes that hold the truth this often, such as 0.9 (a regression: an interval); of a model that zoo calibrate has seen"


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    command = commands.add_parser("predict", help="the label of each input, and the probability of every class")
    command.add_argument("model", metavar="MODEL", help=MODEL)
    command.add_argument("inputs", metavar="INPUTS", nargs="+", help=f"{LINES}, and without --out answers each as it comes")
    command.add_argument("--out", type=Path, metavar="FILE", help="a .csv or .parquet file to write, however many inputs there are")
    command.add_argument("--thresholds", metavar="T", help=THRESHOLDS)
    command.add_argument("--top", type=int, metavar="K", help="the K likeliest classes with their probabilities, in place of those of all")
    command.add_argument("--sets", type=float, metavar="SHARE", help=SETS)
    command.add_argument("--ood", action="store_true", help="a score of each input: above 1 it is unlike the data of zoo calibrate")
    _to_file(command)
    command.set_defaults(run=predict)
    command = commands.add_parser("embed", help="write the pooled features of inputs")
    command.add_argument("model", metavar="MODEL", help=f"{MODEL}, or the name of a backbone")
    command.add_argument("inputs", metavar="INPUTS", nargs="+", help=LINES)
    text = "the file to write: .npz with 'features' (n, dim) and 'inputs' (n,), .parquet or .csv, however many inputs there are"
    command.add_argument("--out", type=Path, metavar="FILE", help=text)
    command.add_argument("--prompt-name", metavar="NAME", help="the prompt of the backbone that is put before each text")
    _to_file(command)
    command.set_defaults(run=embed)


def _to_file(command: argparse.ArgumentParser) -> None:
    command.add_argument("--overwrite", action="store_true", help="replace an existing file, once the new one is whole")
    command.add_argument("--resume", action="store_true", help="go on with a run that was cut off; a finished one stays as it is")
    command.add_argument("--num-processes", type=int, metavar="N", help=PROCESSES)
    command.add_argument("--split", help="only this split of the data")
    pass_options(command)


def predict(options: argparse.Namespace, out: Output) -> None:
    """Print the label of each input and the probability of every class, or write them to a file.

    Raises:
        OptionError: If the inputs of a stream cannot be read.
    """
    from zoo.cli.arguments import settings
    from zoo.cli.commands.fusing import is_fused, predict_fused

    if is_fused(options.model):
        predict_fused(options, out)
        return
    from_stream = _is_stream(options)
    target, given = _target(options, "predictions"), pass_settings(options)
    # Raises before torch is imported if there is no saved model.
    config = config_of(options.model, options.inputs, "zoo predict MODEL INPUTS")
    given |= {"thresholds": thresholds} if (thresholds := settings.thresholds(options.thresholds)) is not None else {}
    given |= {"sets": options.sets} if options.sets is not None else {}
    given |= {"ood": True} if options.ood else {}
    given |= {"top": options.top} if options.top is not None else {}
    if target is not None:
        launch_ranks(options.words, options.num_processes)
    with errors_once(debug=options.debug):
        with uncollected():
            from zoo.engine.inference.decoding.decoder import decoder_of
            from zoo.saved.load import open_model

            model = open_model(Path(options.model), config)
        if target is not None:
            _write(options, out, model, target, "predictions", given)
            return
    wanted = {name: given.pop(name) for name in ("thresholds", "sets", "ood", "top") if name in given}
    decoder = decoder_of(model, **wanted)
    given["columns"] = _columns(options)
    if from_stream:
        for row in predict_lines(model, sys.stdin.buffer, decoder, **given):
            out.line(row if options.json else prediction_cells(row))
        return
    rows = predicted_rows(model, _source(options, model), decoder, **given)
    if options.json:
        out.json(rows)
    else:
        more = more_names(decoder)
        print(table((table_cells(row, more) for row in rows), ("input", "prediction", *more)))


def embed(options: argparse.Namespace, out: Output) -> None:
    """Write the pooled features of inputs to a file, or print them as JSON.

    Raises:
        OptionError: If neither ``--out`` nor ``--json`` is given.
        OutputExistsError: Before anything is computed, if the file exists and may not be overwritten.
        OutputPermissionError: If the file cannot be written.
    """
    if options.out is None and not options.json:
        raise OptionError("zoo embed needs --out FILE, or --json to print the features")
    from zoo.cli.commands.fusing import embed_fused, is_fused

    if is_fused(options.model):
        embed_fused(options, out)
        return
    _is_stream(options)
    target, given = _target(options, "features"), pass_settings(options)
    if target is not None:
        launch_ranks(options.words, options.num_processes)
    with errors_once(debug=options.debug):
        import zoo
        from zoo.registry.lookup import foreign_folder

        saved = (Path(options.model) / "config.json").is_file() and foreign_folder(options.model) is None
        with uncollected():
            model = zoo.load(options.model) if saved else zoo.get(options.model).adapt(num_classes=2)  # the head is never run
        if target is not None:
            _write(options, out, model, target, "features", given)
            return
    from zoo.data.table import names_of
    from zoo.engine.inference.predict import predict_outputs

    found = predict_outputs(model, _source(options, model), model.embed_batch, columns=_columns(options), **given)
    errors = {"errors": {str(row): reason for row, reason in found.errors.items()}} if found.errors else {}
    names = names_of(found.table.inputs, range(len(found.table)))
    features = [None if row in found.errors else values for row, values in enumerate(found.values)] if found.errors else found.values
    out.json({"inputs": names, "dim": found.values.shape[1], "embeddings": features} | errors)


def _is_stream(options: argparse.Namespace) -> bool:
    return is_stream(options.inputs, shared=bool(options.num_processes) or launched() > 1)


def _target(options: argparse.Namespace, what: str) -> Path | None:
    """Return the file to write, checked once for all processes, or None.

    Raises:
        OptionError: If an option is given that needs a file.
    """
    if options.out is not None:
        if launched() > 1:  # the launching process has checked it, or the first rank will
            return Path(options.out)
        return claim_file(options.out, *FILES[what], overwrite=options.overwrite or options.resume)  # what it is of is checked later
    needing = {"--resume": options.resume, "--overwrite": options.overwrite, "--num-processes": options.num_processes or launched() > 1}
    if wrong := [name for name, given in needing.items() if given]:
        raise OptionError(f"{', '.join(wrong)}: give the file to write, --out FILE")
    return None


def _write(options: argparse.Namespace, out: Output, model: TaskModel, target: Path, what: Any, given: dict[str, Any]) -> None:
    from zoo.data.table import names_of
    from zoo.engine.output.write import write_results

    modes = {"overwrite": options.overwrite, "resume": options.resume, "quiet": options.quiet or bool(rank()) or not sys.stderr.isatty()}
    done = write_results(model, _source(options, model), target, what, columns=_columns(options), **modes, **given)
    if rank():
        return
    if options.json:
        names = names_of(done.table.inputs, range(len(done.table)))
        width = {"dim": model.spec.features.dim} if what == "features" else {}
        out.json({"inputs": names, **width, "file": str(done.path), "skipped": done.skipped})
    elif done.was_there:
        left_out = f", {done.skipped} of them without a result" if done.skipped else ""
        print(f"{done.path}: the {what} of all {count(len(done.table), 'input')} are there{left_out}; nothing to do")
    else:
        print(f"{done.path}: {what} of {count(len(done.table) - done.skipped, 'input')}")


def _columns(options: argparse.Namespace) -> dict[str, str]:
    from zoo.cli.arguments import settings

    return settings.columns(options.columns)


def _source(options: argparse.Namespace, model: TaskModel) -> Any:
    """Return the source of a prediction; a single input may be a folder or a table."""
    words = options.inputs
    if words == [STREAM]:
        return all_lines(model, sys.stdin.buffer)
    if reads_texts(model):
        _refuse_files(words)
    return words[0] if len(words) == 1 else list(words)


def _refuse_files(words: Sequence[str]) -> None:
    """Raise if names of files would be read as texts.

    Raises:
        OptionError: Naming them.
    """
    from zoo.data.sources.read import names_file

    is_file = {word: names_file(word) for word in words}
    strange = [word for word in words if os.path.exists(word) and not is_file[word]]  # noqa: PTH110  # Path's raises for a long text
    if len(words) > 1:
        strange += [word for word in words if is_file[word]]
    if strange:
        raise OptionError(f"{examples(strange)}: a file; texts are read from one .csv, .tsv, .parquet or .txt, or given as they are")
