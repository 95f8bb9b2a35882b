"""The command fuse, of images, texts and numbers, and what other commands do with a saved fusion."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.parser import Commands
from zoo.cli.output.backbone_facts import described_features, described_inputs
from zoo.cli.output.prediction_rows import plain_label, table_cells
from zoo.cli.output.stdout import Output, claim_file, metrics_line, show_log, table
from zoo.cli.output.terminal import page, terminal_width
from zoo.declare import OVERFLOWS
from zoo.errors import OptionError, count, examples, printable
from zoo.util.numbers import score_text

if TYPE_CHECKING:
    from zoo.transfer import Fusion
    from zoo.transfer.fusion.parts import Parts

# Options of the commands predict, eval and embed that a fusion takes, or that say nothing of it.
OF_FUSIONS = ("model", "inputs", "data", "out", "overwrite", "root", "columns", "batch_size", "json")
OF_ALL: tuple[str, ...] = ("command", "run", "words", "started", "no_plugins", "strict_plugins", "debug")
OF_ALL += tuple(f"{name}{place}" for name in ("registry", "block", "allow") for place in ("", "_before"))

FUSE = "a classifier of rows with an image, a text and numbers, any of which may be missing"


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    command = commands.add_parser("fuse", help=FUSE, description=f"{FUSE}; see docs/multimodal.md.")
    add = command.add_argument
    add("train", metavar="TRAIN", help="a CSV, TSV, JSON lines or Parquet file with file_name, text or both, label, and the numbers")
    add("--image", metavar="NAME", help="the image backbone")
    add("--text", metavar="NAME", help="the text backbone")
    add("--image-weights", metavar="FILE", help="a file of the image backbone's weights; 'none': random values; else the published ones")
    add("--text-weights", metavar="FILE", help="likewise of the text backbone")
    add("--numbers", metavar="A,B", help="columns of numbers")
    add("--how", default="concatenate", help="concatenate (default), gated or cross_attention")
    add("--tune", default="none", help="what of the backbones trains too: none (default), top (the last group of each), all, lora …")
    add("--set", metavar="KEY=VALUE", action="append", help="an option of the training, as of zoo train: epochs=30; may be repeated")
    add("--valid", metavar="DATA", help="a labelled table on which the parts are compared; else some of TRAIN are held out for that")
    add("--test", metavar="DATA", help="a labelled table that the result is measured on")
    add("--task", default="single-label", help="single-label (default) or multi-label")
    add("--columns", help="own names of the table's columns: file_name=file,text=caption")
    add("--label-columns", metavar="A,B", help="columns that hold the labels, one per class (--task multi-label)")
    add("--uncertain", choices=("mask", "positive", "negative"), help="what a label of -1 counts as; else it is refused")
    add("--root", metavar="DIR", help="folder of the images; else that of the table")
    add("--overflow", choices=OVERFLOWS, help="what becomes of texts that are too long, where the head is solved; else they are cut")
    add("--dropout", type=float, default=0.2, metavar="SHARE", help="share of the rows given without one part (0.2)")
    add("--seed", type=int, default=0, metavar="N", help="seed of everything random (0)")
    add("--out", metavar="DIR", required=True, help="the folder of the result")
    add("--overwrite", action="store_true", help="write into a folder that is not empty")
    add("--quiet", action="store_true", help="no progress")
    add("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=fuse)


def is_fused(folder: str | Path) -> bool:
    """Return whether a folder is that of a saved fusion."""
    from zoo.saved.config import FUSION

    return (Path(folder) / FUSION).is_file()


def fuse(options: argparse.Namespace, out: Output) -> None:
    """Fuse backbones and numbers, save the result, and print how each part does alone, and the metrics."""
    from zoo.cli.arguments import settings
    from zoo.data.sources.folders import check_exists
    from zoo.saved.save import check_free
    from zoo.transfer import fuse as fused

    check_free(Path(options.out), overwrite=options.overwrite)  # before anything is trained for it
    for path in filter(None, (options.train, options.valid, options.test)):
        check_exists(Path(path))
    given: dict[str, Any] = {name: getattr(options, name) for name in ("task", "root", "dropout", "seed", "how", "tune", "uncertain")}
    given |= {"label_columns": settings.names(options.label_columns, "--label-columns") or ()}
    given |= {name: _tower(options, name) for name in ("image", "text")}
    given |= {"columns": settings.columns(options.columns), "training": settings.pairs(options.set, "--set")}
    numbers = settings.names(options.numbers, "--numbers") or ()
    _check_apart(given["training"].get("out"), Path(options.out))
    given |= {} if options.overflow is None else {"overflow": options.overflow}
    if not options.quiet:
        show_log()
    found = fused(options.train, options.valid, numbers=numbers, **given, quiet=options.quiet)
    folder = found.save(options.out, overwrite=options.overwrite)  # first, as the test table may have faults
    metrics = {} if options.test is None else found.evaluate(options.test)
    if options.json:
        out.json(
            {"dir": str(folder), "classes": list(found.classes), "metrics": metrics, "scores": dict(found.scores), "verdict": found.verdict}
        )
        return
    rows = [[name, score_text(found.monitor, value)] for name, value in found.scores.items()]
    parts = table(rows, ("held-out rows, by", found.monitor), right=(1,)) + "\n" if rows else ""
    print(*filter(None, (parts, metrics_line(metrics) if metrics else "", str(folder))), sep="\n")


def _check_apart(run: Any, result: Path) -> None:
    """Check that the folder of the training's run does not lie in that of the result, which would then not be free at the end.

    Raises:
        OptionError: With what to give.
    """
    if isinstance(run, str) and result.resolve() in (Path(run).resolve(), *Path(run).resolve().parents):
        raise OptionError(f"--set out={run} is the folder of the training's run, and --out {result} that of the result; give each its own")


def _tower(options: argparse.Namespace, part: str) -> Any:
    """Return the backbone of a part by its name, with the weights that are given for it.

    Raises:
        OptionError: If weights are given and no backbone.
    """
    import zoo

    name, weights = getattr(options, part), getattr(options, f"{part}_weights")
    if weights is None:
        return name
    if name is None:
        raise OptionError(f"--{part}-weights {weights}: there is no --{part} whose weights these are")
    return zoo.get(name, weights=False if weights == "none" else weights)


def predict_fused(options: argparse.Namespace, out: Output) -> None:
    """Print the label of each row of a table and its probability by a saved fusion, or write them to a file.

    Raises:
        OptionError: If an option is given that a fusion does not take, or several inputs.
    """
    import numpy as np

    from zoo.tasks.find import find_task

    fusion, target = _opened(options, "predict"), _target(options, ".csv", ".parquet")
    parts, task = fusion.read(options.inputs[0]), find_task(fusion.task)
    outputs = fusion.outputs(parts)
    labels, shares = task.decode(outputs, fusion.classes), np.asarray(task.probabilities(outputs), dtype=np.float32)
    names = _names(parts)
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


def embed_fused(options: argparse.Namespace, out: Output) -> None:
    """Write the fused features of each row of a table to a file, or print them.

    Raises:
        OptionError: If an option is given that a fusion does not take, or several inputs.
    """
    from zoo.engine.inference.decoding.result_columns import Column
    from zoo.engine.output.formats import write_columns

    fusion, target = _opened(options, "embed"), _target(options, ".npz", ".csv", ".parquet")
    parts = fusion.read(options.inputs[0])
    features, names = fusion.fused_features(parts), _names(parts)
    document: dict[str, Any] = {"inputs": names, "dim": features.shape[1]}
    if target is None:
        out.json(document | {"embeddings": features})
        return
    write_columns(target, {"input": Column("text", names), "features": Column("vector", features)})
    if options.json:
        out.json(document | {"file": str(target), "skipped": 0})
    else:
        print(f"{target}: features of {count(len(names), 'input')}")


def show_fused(options: argparse.Namespace, out: Output) -> None:
    """Print what a saved fusion is made of: its towers, how they are fused, its features and scores."""
    import zoo
    from zoo.transfer.fusion.saved import fusion_record

    record = fusion_record(Path(options.name))
    specs = {part: zoo.get(folder).spec for part, folder in record["models"].items()}
    if options.json:
        out.json(record | {"backbones": {part: spec.base or spec.name for part, spec in specs.items()}})
        return
    rows = {
        part: f"{spec.base or spec.name}: {described_inputs(spec.inputs)}\n{described_features(spec)}\nbackbone: {record['models'][part]}"
        for part, spec in specs.items()
    }
    trained = f"trained, with {record['tokens']} tokens of a text" if record.get("tokens") else "trained"
    rows |= {
        "numbers": ", ".join(record["numbers"]),
        "fused by": f"{record['how']}, {trained if record['trained'] else 'with a solved head'}",
        "features": f"{record['dim']} wide",
        "task": f"{record['task']}, {count(len(record['classes']), 'class')}: {examples(record['classes'], 8)}",
        "columns": ", ".join(f"{role}={name}" for role, name in record["columns"].items()),
        "scores": ", ".join(f"{name} {score_text(record['monitor'], value)}" for name, value in record["scores"].items()),
        "scored by": record["monitor"] if record["scores"] else "",
        "verdict": record["verdict"],
    }
    kind = _kind(list(specs), record["numbers"])
    print(printable("\n".join([options.name, kind, "", page({key: text for key, text in rows.items() if text}, width=terminal_width())])))


def _kind(models: list[str], numbers: list[str]) -> str:
    """Return what a fusion with models of these parts and these columns of numbers reads, in one line."""
    parts = [*(f"{'an' if part == 'image' else 'a'} {part}" for part in models), *([count(len(numbers), "number")] if numbers else [])]
    return f"a classifier of rows with {', '.join(parts[:-1])} and {parts[-1]}, any of which may be missing"


def _target(options: argparse.Namespace, *suffixes: str) -> Path | None:
    """Return the file to write, or None for the terminal.

    Raises:
        OptionError: If ``--overwrite`` is given without a file.
    """
    if options.out is None and options.overwrite:
        raise OptionError("--overwrite: give the file to write, --out FILE")
    return None if options.out is None else claim_file(options.out, *suffixes, overwrite=options.overwrite)


def _names(parts: Parts) -> list[str]:
    """Return the name of each row: its image where there is one, else its text, else its number."""
    from zoo.data.table import names_of

    named = enumerate(zip(*(names_of(inputs, range(len(inputs))) for inputs in parts.inputs.values()), strict=True))
    return [next((name for name in each if name != f"row {row}"), f"row {row}") for row, each in named]


def _opened(options: argparse.Namespace, command: str) -> Fusion:
    """Open the fusion of a command with its own options of reading.

    Raises:
        OptionError: If an option is given that a fusion does not take, or several inputs.
    """
    from zoo.cli.arguments import settings

    if command != "eval" and len(options.inputs) != 1:
        raise OptionError(f"{options.model!r} is a fusion and reads one table; {count(len(options.inputs), 'input')} are given")
    given = {name: value for name, value in vars(options).items() if name not in (*OF_FUSIONS, *OF_ALL)}
    odd = [f"--{name.replace('_', '-')}" for name, value in given.items() if not (value is None or value is False or value == "stop")]
    if odd:
        taken = "--root, --columns, --batch-size, --json" + (", --out, --overwrite" if command != "eval" else "")
        raise OptionError(f"{', '.join(odd)}: {options.model!r} is a fusion, of which zoo {command} takes only {taken}")
    from zoo.transfer import load_fusion

    fusion = load_fusion(options.model, root=options.root)
    fusion.columns = {**fusion.columns, **settings.columns(options.columns)}
    if options.batch_size is not None:
        fusion.options = {**fusion.options, "batch_size": options.batch_size}
    return fusion


def _write_rows(target: Path, names: list[str], labels: list[Any], shares: Any, classes: tuple[str, ...]) -> None:
    """Write predictions in the columns of those of other models."""
    from zoo.engine.inference.decoding.result_columns import Column, label_text
    from zoo.engine.output.formats import write_columns

    columns = {"input": Column("text", names), "prediction": Column("text", [label_text(label) for label in labels])}
    write_columns(target, columns | {f"probability_{name}": Column("share", shares[:, place]) for place, name in enumerate(classes)})
