"""The command fuse, of images, texts and numbers, and what other commands do with a saved fusion."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.output import Output, claim_file, metrics_line, table
from zoo.cli.parser import Commands
from zoo.cli.prediction_rows import plain_label, table_cells
from zoo.errors import OptionError, count

if TYPE_CHECKING:
    from zoo.transfer import Fusion

# Options of the commands predict and eval that a fusion takes, or that say nothing of it.
OF_FUSIONS = ("model", "inputs", "data", "out", "overwrite", "root", "columns", "batch_size", "json")
OF_ALL: tuple[str, ...] = ("command", "run", "words", "no_plugins", "strict_plugins", "debug")
OF_ALL += tuple(f"{name}{place}" for name in ("registry", "block", "allow") for place in ("", "_before"))

FUSE = "a classifier of rows with an image, a text and numbers, any of which may be missing"


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    command = commands.add_parser("fuse", help=FUSE, description=f"{FUSE}; see docs/multimodal.md.")
    add = command.add_argument
    add("train", metavar="TRAIN", help="a CSV, TSV, JSON lines or Parquet file with file_name, text or both, label, and the numbers")
    add("--image", metavar="NAME", help="the image backbone")
    add("--text", metavar="NAME", help="the text backbone")
    add("--numbers", metavar="A,B", help="columns of numbers")
    add("--how", default="concatenate", help="concatenate (default), gated or cross_attention")
    add("--tune", default="none", help="what of the backbones trains too: none (default), top (the last group of each) or all")
    add("--set", metavar="KEY=VALUE", action="append", help="an option of the training, as of zoo train: epochs=30; may be repeated")
    add("--valid", metavar="DATA", help="a labelled table on which the parts are compared; else some of TRAIN are held out for that")
    add("--test", metavar="DATA", help="a labelled table that the result is measured on")
    add("--task", default="single-label", help="single-label (default) or multi-label")
    add("--columns", help="own names of the table's columns: file_name=file,text=caption")
    add("--root", metavar="DIR", help="folder of the images; else that of the table")
    add("--dropout", type=float, default=0.2, metavar="SHARE", help="share of the rows given without one part (0.2)")
    add("--seed", type=int, default=0, metavar="N", help="seed of everything random (0)")
    add("--out", metavar="DIR", required=True, help="the folder of the result")
    add("--overwrite", action="store_true", help="write into a folder that is not empty")
    add("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=fuse)


def fuse(options: argparse.Namespace, out: Output) -> None:
    """Fuse backbones and numbers, save the result, and print how each part does alone, and the metrics."""
    from zoo.cli import settings
    from zoo.data.sources.folders import check_exists
    from zoo.saved.save import check_free
    from zoo.transfer import fuse as fused

    check_free(Path(options.out), overwrite=options.overwrite)  # before anything is trained for it
    for path in filter(None, (options.train, options.valid, options.test)):
        check_exists(Path(path))
    given: dict[str, Any] = {name: getattr(options, name) for name in ("image", "text", "task", "root", "dropout", "seed", "how", "tune")}
    given |= {"columns": settings.columns(options.columns), "training": settings.pairs(options.set, "--set")}
    numbers = settings.names(options.numbers, "--numbers") or ()
    found = fused(options.train, options.valid, numbers=numbers, **given, quiet=True)
    folder = found.save(options.out, overwrite=options.overwrite)  # first, as the test table may have faults
    metrics = {} if options.test is None else found.evaluate(options.test)
    if options.json:
        out.json({"dir": str(folder), "classes": list(found.classes), "metrics": metrics, "scores": dict(found.scores)})
        return
    rows = [[name, f"{value:.4f}"] for name, value in found.scores.items()]
    parts = table(rows, ("held-out rows, by", found.monitor), right=(1,)) + "\n" if rows else ""
    print(*filter(None, (parts, metrics_line(metrics) if metrics else "", str(folder))), sep="\n")


def predict_fused(options: argparse.Namespace, out: Output) -> None:
    """Print the label of each row of a table and its probability by a saved fusion, or write them to a file.

    Raises:
        OptionError: If an option is given that a fusion does not take, or several inputs.
    """
    import numpy as np

    from zoo.data.table import names_of
    from zoo.tasks.find import find_task

    if len(options.inputs) != 1:
        raise OptionError(f"{options.model!r} is a fusion and reads one table; {count(len(options.inputs), 'input')} are given")
    fusion = _opened(options, "predict")
    if options.out is None and options.overwrite:
        raise OptionError("--overwrite: give the file to write, --out FILE")
    target = None if options.out is None else claim_file(options.out, ".csv", ".parquet", overwrite=options.overwrite)
    parts, task = fusion.read(options.inputs[0]), find_task(fusion.task)
    outputs = fusion.outputs(parts)
    labels, shares = task.decode(outputs, fusion.classes), np.asarray(task.probabilities(outputs), dtype=np.float32)
    named = enumerate(zip(*(names_of(inputs, range(len(labels))) for inputs in parts.inputs.values()), strict=True))
    # The image where there is one, else the text; a missing part has no name but that of its row.
    names = [next((name for name in each if name != f"row {row}"), f"row {row}") for row, each in named]
    if target is not None:
        _write_rows(target, names, labels, shares, fusion.classes)
        print(f"{target}: predictions of {count(len(labels), 'input')}")
        return
    rows: list[dict[str, Any]] = [
        {"input": name, "label": plain_label(label), "probabilities": dict(zip(fusion.classes, map(float, share), strict=True))}
        for name, label, share in zip(names, labels, shares, strict=True)
    ]
    if options.json:
        out.json(rows)
    else:
        print(table((table_cells(row) for row in rows), ("input", "prediction", "probability")))


def evaluate_fused(options: argparse.Namespace, out: Output) -> None:
    """Print the metrics of a saved fusion on a labelled table.

    Raises:
        OptionError: If an option is given that a fusion does not take.
    """
    metrics = _opened(options, "eval").evaluate(options.data)
    if options.json:
        out.json(metrics)
    else:
        print(metrics_line(metrics))


def _opened(options: argparse.Namespace, command: str) -> Fusion:
    """Open the fusion of a command with its own options of reading."""
    from zoo.cli import settings

    given = {name: value for name, value in vars(options).items() if name not in (*OF_FUSIONS, *OF_ALL)}
    odd = [f"--{name.replace('_', '-')}" for name, value in given.items() if value not in (None, False, "stop")]
    if odd:
        taken = "--root, --columns, --batch-size, --json" + (", --out, --overwrite" if command == "predict" else "")
        raise OptionError(f"{', '.join(odd)}: {options.model!r} is a fusion, of which zoo {command} takes only {taken}")
    from zoo.transfer import load_fusion

    fusion = load_fusion(options.model, root=options.root)
    fusion.columns = {**fusion.columns, **settings.columns(options.columns)}
    if options.batch_size is not None:
        fusion.options = {**fusion.options, "batch_size": options.batch_size}
    return fusion


def _write_rows(target: Path, names: list[str], labels: list[Any], shares: Any, classes: tuple[str, ...]) -> None:
    """Write predictions in the columns of those of other models."""
    from zoo.engine.inference.result_columns import Column, label_text
    from zoo.engine.output.formats import write_columns

    columns = {"input": Column("text", names), "prediction": Column("text", [label_text(label) for label in labels])}
    write_columns(target, columns | {f"probability_{name}": Column("share", shares[:, place]) for place, name in enumerate(classes)})
