"""The command eval, which measures a saved model on labelled data."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.data_by_task import data_by_task
from zoo.cli.arguments.parser import Commands
from zoo.cli.arguments.pass_options import labelled_options, labelled_settings
from zoo.cli.arguments.saved_model import config_of
from zoo.cli.commands.training import DATA
from zoo.cli.commands.using import MODEL, PROCESSES, THRESHOLDS
from zoo.cli.launch import launch_ranks
from zoo.cli.output.rank_errors import errors_once
from zoo.cli.output.stdout import Output, claim_file, format_metrics, show_log, table
from zoo.cli.start_up import uncollected
from zoo.engine.runtime.launch_env import rank
from zoo.errors import OptionError
from zoo.util.extras import require_extra
from zoo.util.numbers import score_text, without_nan

if TYPE_CHECKING:
    from zoo.engine.inference.evaluation import Evaluation

TERMINAL = "-"  # place of a confusion matrix that is printed
PRINTED = 30  # most classes of a confusion matrix that is printed
FILES = {
    "predictions": (".csv", ".parquet"),
    "wrong": (".csv", ".parquet"),
    "confusion": (".csv", ".png"),
    "selective": (".png", ".csv"),
}


def register(commands: Commands) -> None:
    """Add the command of this module."""
    command = commands.add_parser("eval", help="measure a saved model on labelled data")
    add = command.add_argument
    add("model", metavar="MODEL", help=MODEL)
    add("data", metavar="DATA", help=DATA)
    labelled_options(command)
    text = "add bootstrap confidence intervals of this level (0.95 by default), resampled by patient"
    add("--intervals", type=float, nargs="?", const=0.95, metavar="SHARE", help=text)
    add("--specificity", type=float, metavar="SHARE", help="add the sensitivity at this specificity, such as 0.95")
    add("--sensitivity", type=float, metavar="SHARE", help="add the specificity at this sensitivity, such as 0.95")
    add("--positive", metavar="CLASS", help="the class of two that these two are about; else the last one")
    add("--metrics", metavar="A,B", help="further metrics by name, such as mcc,kappa, or all; see docs/metrics.md")
    add("--thresholds", metavar="T", help=THRESHOLDS)
    add("--sets", type=float, metavar="SHARE", help="level of the prediction sets whose coverage is measured; else 0.9")
    add("--per-class", action="store_true", help="print precision, recall and F1 of each class; of several labels it always is")
    add("--predictions", type=Path, metavar="FILE", help="write a row per sample (.csv, .parquet): truth, prediction, probabilities")
    add(
        "--confusion",
        nargs="?",
        const=TERMINAL,
        metavar="FILE",
        help="print how often each class is taken for each; or a .csv or .png file",
    )
    add("--wrong", type=Path, metavar="FILE", help="write the wrong predictions, the most confident first (.csv, .parquet)")
    add("--selective", type=Path, metavar="FILE", help="write the error among the most confident predictions (.png, .csv)")
    add("--overwrite", action="store_true", help="replace existing files")
    add("--num-processes", type=int, metavar="N", help=PROCESSES)
    command.set_defaults(run=evaluate)


def evaluate(options: argparse.Namespace, out: Output) -> None:
    """Print the metrics of a saved model on labelled data, and write what else is asked for."""
    from zoo.cli.commands.fusing import evaluate_fused, is_fused
    from zoo.data.sources.folders import check_exists

    if is_fused(options.model):
        evaluate_fused(options, out)
        return
    config = config_of(options.model, [options.data], "zoo eval MODEL DATA")  # raises before torch is imported if there is no saved model
    data = data_by_task(options.data, config.task)
    for path in data.values() if isinstance(data, dict) else [data]:
        check_exists(Path(path))
    if options.confusion == TERMINAL and config.num_classes > PRINTED:
        raise OptionError(f"--confusion prints at most {PRINTED} classes, and the model has {config.num_classes}; give it a file")
    _check_kind(options, config.task, config.num_classes)
    files, given = {} if rank() else _files(options), _settings(options)
    launch_ranks(options.words, options.num_processes)
    if not (options.json or options.quiet or rank()):
        show_log()
    with errors_once(debug=options.debug):
        with uncollected():
            from zoo.saved.load import open_model

            model = open_model(Path(options.model), config)
        found = model.evaluate(data, share=True, **given)
        if rank():
            return
        _write(found, files)
    by_class = options.per_class or _by_label(config.task)
    document, texts = _report(found, by_class=by_class, confusion=options.confusion == TERMINAL)
    if options.json:
        out.json(document)
    else:
        print("\n\n".join([*texts, *(f"{path}: {name}" for name, path in files.items())]))


def _files(options: argparse.Namespace) -> dict[str, Path]:
    """Return the files to write by what they hold, each checked before anything is computed."""
    for extra, flag in _needed_extras(options):
        require_extra(extra, flag)
    paths = {name: Path(getattr(options, name)) for name in FILES if getattr(options, name) not in (None, TERMINAL)}
    flags: dict[Path, list[str]] = {}
    for name, path in paths.items():
        flags.setdefault(path.absolute(), []).append(f"--{name}")
    if twice := [f"{' and '.join(each)} both name {str(path)!r}" for path, each in flags.items() if len(each) > 1]:
        raise OptionError(f"{'; '.join(twice)}; give each a file of its own")
    return {name: claim_file(path, *FILES[name], overwrite=options.overwrite, option=f"--{name}") for name, path in paths.items()}


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of an evaluation that were given."""
    from zoo.cli.arguments import settings

    given = {name: getattr(options, name) for name in ("intervals", "specificity", "sensitivity", "positive", "sets")}
    given |= {"thresholds": settings.thresholds(options.thresholds), "metrics": settings.names(options.metrics, "--metrics")}
    given |= labelled_settings(options)
    return {name: value for name, value in given.items() if value is not None}


def _needed_extras(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield the extras that the wanted files need, with the option that names the file."""
    for name in ("predictions", "wrong"):
        if getattr(options, name) is not None:
            yield "tables", f"--{name}"
    for name in ("confusion", "selective"):
        if str(getattr(options, name)).lower().endswith(".png"):
            yield "plots", f"--{name} FILE.png"


def _check_kind(options: argparse.Namespace, task: str, outputs: int) -> None:
    """Check before torch is imported that the task has what is asked for.

    Raises:
        OptionError: For an unknown metric, or a curve or a table that the task has not.
    """
    from zoo.cli.arguments import settings
    from zoo.tasks.find import find_task
    from zoo.tasks.several import SeveralTasks
    from zoo.trust.metric_table import METRICS, find_metrics

    kind = find_task(task)
    asked = [flag for flag in ("--selective", "--confusion", "--wrong", "--per-class") if getattr(options, flag[2:].replace("-", "_"))]
    if isinstance(kind, SeveralTasks) and asked:
        raise OptionError(
            f"{', '.join(asked)}: for one task, and the model has several; in Python: model.evaluate(data).of({kind.names[0]!r})"
        )
    find_metrics(task, settings.names(options.metrics, "--metrics") or (), outputs)
    if options.selective is not None and "aurc" not in METRICS.get(task, {}):
        raise OptionError(f"--selective is for one class per sample; the task is {kind.words}")
    if options.per_class and not kind.has_classes:
        raise OptionError(f"--per-class is for classes; the task is {kind.words}")


def _by_label(task: str) -> bool:
    from zoo.tasks.find import find_task

    return bool(find_task(task).thresholded)


def _write(found: Evaluation, files: dict[str, Path]) -> None:
    from zoo.engine.output.confusion import write_confusion
    from zoo.engine.output.formats import write_columns
    from zoo.engine.output.risk_curve import write_risk_curve

    if "predictions" in files:
        write_columns(files["predictions"], found.columns())
    if "wrong" in files:
        write_columns(files["wrong"], found.mistake_columns())
    if "confusion" in files:
        write_confusion(files["confusion"], *found.confusion())
    if "selective" in files:
        write_risk_curve(files["selective"], found.selective())


def _report(found: Evaluation, *, by_class: bool, confusion: bool) -> tuple[dict[str, Any], list[str]]:
    """Return what is printed, as a JSON document and as tables."""
    document: dict[str, Any] = {name: float(value) for name, value in found.items()} | {"samples": len(found.rows)}
    told, free = format_metrics(found), found.baselines()
    ranges = any("[" in text for text in told.values())
    rows = [["samples", str(len(found.rows)), *([""] * len(free))]]
    rows += [[name, text, *(_cell(answers.get(name), name) for answers in free.values())] for name, text in told.items()]
    texts = [table(rows, ("metric", "value", *free), right=range(2 if ranges else 1, 2 + len(free)))]
    if free:
        document["baselines"] = free
    if found.errors:
        document["skipped"] = len(found.errors)
    if by_class:
        labels = without_nan(found.per_class())
        document["per_class"] = labels
        keys = list(next(iter(labels.values()), {}))
        texts.append(
            table(([name, *map(_cell, row.values())] for name, row in labels.items()), ("label", *keys), right=range(1, 1 + len(keys)))
        )
    if confusion:
        names, matrix = found.confusion()
        document["confusion"] = {"classes": names, "matrix": matrix.tolist()}
        counts = ([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))
        texts.append(table(counts, ("truth \\ prediction", *names), right=range(1, 1 + len(names))))
    return document, texts


def _cell(value: float | None, metric: str = "") -> str:
    return "" if value is None else str(value) if isinstance(value, int) else score_text(metric, value)
