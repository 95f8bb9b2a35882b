"""The commands eval, predict and embed, which use a saved model."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.output import Output, claim_file, show_log, table
from zoo.cli.parser import Commands
from zoo.cli.training import DATA
from zoo.errors import OptionError, examples

if TYPE_CHECKING:
    from zoo.models.task_model import TaskModel

SHOWN = 60  # characters of an input in a printed table
MODEL = "the folder of a saved model or run"
OTHERS = "leave out samples whose label is none of the model's classes, instead of refusing them"
INPUTS = "images or texts, or one folder or table of them"


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    command = commands.add_parser("eval", help="measure a saved model on labelled data")
    command.add_argument("model", metavar="MODEL", help=MODEL)
    command.add_argument("data", metavar="DATA", help=DATA)
    command.add_argument("--split", help="only this split of the data")
    command.add_argument("--drop-other-classes", action="store_true", help=OTHERS)
    command.add_argument("--label-columns", metavar="A,B", help="columns that hold the labels, one per class")
    command.add_argument("--uncertain", choices=("mask", "positive", "negative"), help="what a label of -1 counts as; else it is refused")
    text = "add bootstrap confidence intervals of this level (0.95 by default), resampled by patient"
    command.add_argument("--intervals", type=float, nargs="?", const=0.95, metavar="SHARE", help=text)
    command.add_argument("--specificity", type=float, metavar="SHARE", help="add the sensitivity at this specificity, such as 0.95")
    command.add_argument("--positive", metavar="CLASS", help="the class of two that --specificity is about; else the last one")
    _common(command)
    command.set_defaults(run=evaluate)
    command = commands.add_parser("predict", help="the label of each input, and the probability of every class")
    command.add_argument("model", metavar="MODEL", help=MODEL)
    command.add_argument("inputs", metavar="INPUTS", nargs="+", help=INPUTS)
    _common(command)
    command.set_defaults(run=predict)
    command = commands.add_parser("embed", help="write the pooled features of inputs")
    command.add_argument("model", metavar="MODEL", help=f"{MODEL}, or the name of a backbone")
    command.add_argument("inputs", metavar="INPUTS", nargs="+", help=INPUTS)
    command.add_argument("--out", type=Path, metavar="FILE", help="the .npz file to write: 'features' (n, dim) and 'inputs' (n,)")
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    _common(command)
    command.set_defaults(run=embed)


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", metavar="DIR", help="folder of the files that a table names, with or without their endings")
    command.add_argument("--columns", help="own names of a table's columns: file_name=file,group=patient_id")
    command.add_argument("--window", metavar="C,W", help="centre and width through which scans are shown, such as 40,400")
    command.add_argument("--batch-size", type=int, metavar="N", help="samples per forward")
    command.add_argument("--json", action="store_true", help="print one JSON document")


def evaluate(options: argparse.Namespace, out: Output) -> None:
    """Print the metrics of a saved model on labelled data."""
    from zoo.cli import settings
    from zoo.data.folders import check_exists
    from zoo.saved.metadata import read_config

    config = read_config(Path(options.model))  # raises before torch is imported if there is no saved model
    check_exists(Path(options.data))
    if not options.json:
        show_log()
    names = ("split", "drop_other_classes", "batch_size", "intervals", "specificity", "positive", "uncertain", "root")
    given = {name: getattr(options, name) for name in names} | {"columns": settings.columns(options.columns)}
    given |= {"window": settings.window(options.window), "label_columns": settings.names(options.label_columns, "--label-columns")}
    from zoo.saved.saved import open_model

    given = {name: value for name, value in given.items() if value is not None}
    metrics = open_model(Path(options.model), config).evaluate(options.data, **given)
    if options.json:
        out.json({name: float(value) for name, value in metrics.items()})
    else:
        print(table(((name, f"{value:.4f}") for name, value in metrics.items()), ("metric", "value"), right=(1,)))


def predict(options: argparse.Namespace, out: Output) -> None:
    """Print the label of each input and the probability of every class."""
    import numpy as np

    from zoo.cli import settings
    from zoo.saved.metadata import read_config
    from zoo.tasks.find import find_task

    config = read_config(Path(options.model))  # as in evaluate
    from zoo.engine.inference.evaluate import decoded, predict_logits
    from zoo.saved.saved import open_model

    model = open_model(Path(options.model), config)
    source, names = _inputs(options.inputs, model, settings.columns(options.columns), options.root)
    given = _given(options)
    logits = predict_logits(model, source, **given)  # one pass for labels and probabilities
    labels = [_plain(label) for label in decoded(model, logits)]
    rows: list[dict[str, Any]] = [{"input": name, "label": label} for name, label in zip(names, labels, strict=True)]
    probabilities = find_task(model.task).probabilities(logits.astype(np.float64)) if logits.dtype != object else None
    if probabilities is not None:
        classes = [str(label) for label in model.labels or range(model.num_classes)]
        for row, shares in zip(rows, probabilities.astype(np.float32), strict=True):
            row["probabilities"] = dict(zip(classes, map(float, shares), strict=True))
    if options.json:
        out.json(rows)
    else:
        print(table((_prediction(row) for row in rows), ("input", "prediction", "probability")))


def embed(options: argparse.Namespace, out: Output) -> None:
    """Write the pooled features of inputs to an ``.npz`` file, or print them as JSON.

    Raises:
        OptionError: If neither ``--out`` nor ``--json`` is given.
        OutputExistsError: Before anything is computed, if the file exists and may not be overwritten.
        OutputPermissionError: If the file cannot be written.
    """
    if options.out is None and not options.json:
        raise OptionError("zoo embed needs --out FILE, or --json to print the features")
    target = None if options.out is None else claim_file(options.out, ".npz", overwrite=options.overwrite)
    import numpy as np

    import zoo
    from zoo.cli import settings
    from zoo.registry.lookup import foreign_folder

    saved = (Path(options.model) / "config.json").is_file() and foreign_folder(options.model) is None
    model = zoo.load(options.model) if saved else zoo.get(options.model).adapt(num_classes=2)  # the head is never run
    source, names = _inputs(options.inputs, model, settings.columns(options.columns), options.root)
    features = model.embed(source, **_given(options))
    if target is not None:
        np.savez(target, features=features, inputs=np.array(names))
        print(f"{target}: features of shape {features.shape}")
    if options.json:
        where = {"embeddings": features} if target is None else {"file": target}
        out.json({"inputs": names, "dim": features.shape[1], **where})


def _given(options: argparse.Namespace) -> dict[str, Any]:
    from zoo.cli import settings

    given = {"batch_size": options.batch_size, "window": settings.window(options.window)}
    return {name: value for name, value in given.items() if value is not None}


def _inputs(words: Sequence[str], model: TaskModel, columns: dict[str, str], root: str | None) -> tuple[Any, list[str]]:
    """Return a source for prediction and the names of its samples; a single input may be a folder or a table."""
    from zoo.data.open import open_data
    from zoo.data.read import TEXTUAL, kind_of

    reads = kind_of(model.inputs, model.task)
    if reads in TEXTUAL:
        _refuse_files(words)
    opened = open_data(words[0] if len(words) == 1 else list(words), columns=columns, labelled=False, reads=reads, root=root)
    return opened, [" ".join(item) if isinstance(item, list | tuple) else str(item) for item in opened.inputs]


def _refuse_files(words: Sequence[str]) -> None:
    """Raise if names of files would be read as texts.

    Raises:
        OptionError: Naming them.
    """
    from zoo.data.read import names_file

    is_file = {word: names_file(word) for word in words}
    strange = [word for word in words if os.path.exists(word) and not is_file[word]]  # noqa: PTH110  # Path's raises for a long text
    if len(words) > 1:
        strange += [word for word in words if is_file[word]]
    if strange:
        raise OptionError(f"{examples(strange)}: a file; texts are read from one .csv, .tsv, .parquet or .txt, or given as they are")


def _plain(label: Any) -> Any:
    """Return a prediction for JSON and tables: a name as text, several as a list."""
    if isinstance(label, list | tuple):
        return [_plain(part) for part in label]
    return label if isinstance(label, float | str) else str(label)


def _prediction(row: dict[str, Any]) -> tuple[object, ...]:
    label, shares = row["label"], row.get("probabilities", {})
    chosen = label if isinstance(label, list | tuple) else [label]
    text = row["input"]
    return (
        text if len(text) <= SHOWN else text[: SHOWN - 1] + "…",
        ", ".join(map(str, chosen)) or "none",
        ", ".join(f"{shares[one]:.3f}" for one in chosen if one in shares),
    )
