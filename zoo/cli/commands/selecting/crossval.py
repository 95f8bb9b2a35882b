"""The commands cv and compare: scores with intervals, and whether they can be told apart."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.parser import Commands
from zoo.cli.arguments.pass_options import labelled_options, labelled_settings
from zoo.cli.commands.training import RECIPES, add_run_arguments, read_settings
from zoo.cli.job import find_declared, job_of
from zoo.cli.output.stdout import Output, format_metrics, show_log, table
from zoo.cli.output.wording import as_typed
from zoo.engine.runtime.progress import in_time_units
from zoo.engine.runtime.signals import ending_early
from zoo.errors import OptionError, check_together
from zoo.util.numbers import score_text, without_nan

if TYPE_CHECKING:
    from zoo.select.comparison.compare import Comparison
    from zoo.select.crossval.resampled import Summary
    from zoo.select.crossval.result import CrossValidation


def register(commands: Commands) -> None:
    """Add the command of this module."""
    text = "cross-validate a backbone and a recipe: scores with intervals, out-of-fold predictions, an ensemble of the folds"
    command = commands.add_parser("cv", help=text)
    add_run_arguments(command)
    add = command.add_argument
    add("--recipe", help=RECIPES)
    add("--folds", type=int, default=5, metavar="K", help="number of folds (5), stratified by class")
    add("--repeats", type=int, default=1, metavar="R", help="number of divisions into folds, each with a seed of its own (1)")
    add("--metric", metavar="NAME", help="the metric that is compared and drawn; else the first of the task")
    text = "hold out a fifth of each fold's training samples to choose its best epoch; else the last one is kept"
    add("--inner-valid", action="store_true", help=text)
    add("--json", action="store_true", help="one JSON document with the result")
    command.set_defaults(run=cross_validate)
    text = "compare runs or cross-validations: settings that differ, scores, and a paired test of every two"
    command = commands.add_parser("compare", help=text)
    add = command.add_argument
    add("runs", metavar="RUN", nargs="+", help="folders of runs or cross-validations, two or more")
    add("--test", "--on", metavar="DATA", dest="test", help="labelled data that all of them predict; else the out-of-fold predictions")
    add("--metric", metavar="NAME", help="the metric of the tests; else that of the first run")
    labelled_options(command, "only this split of the data of --test")
    command.set_defaults(run=compare)


def cross_validate(options: argparse.Namespace, out: Output) -> None:
    """Cross-validate; as much as possible is checked before torch is imported.

    Raises:
        OptionError: If an option contradicts several folds.
    """
    from zoo.data.splits.folds import check_numbers

    settings, *_ = check_together(
        "this cross-validation cannot run:",
        lambda: _foldable_settings(options),
        lambda: check_numbers(options.folds, options.repeats),
        lambda: find_declared(options.name, {"head": options.head}),
    )
    settings["valid"] = None if options.inner_valid else False
    job = job_of(find_declared(options.name, settings), options.data, settings, whole=True)
    if not settings["quiet"]:
        show_log()
    from zoo.select.crossval.cross_validate import run_folds

    how: dict[str, Any] = {"folds": options.folds, "repeats": options.repeats, "metric": options.metric}
    with ending_early():
        found = run_folds(job, **how, inner_valid=options.inner_valid, out=settings["out"], resume=bool(settings["resume"]))
    if options.json:
        out.json(document(found))
    else:
        print(*tables(found), str(found.dir), sep="\n\n")


def _foldable_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the folds.

    Raises:
        OptionError: If the recipe is to be chosen, for a metric that the task does not have, or as ``read_settings``.
    """
    from zoo.tasks.find import find_task
    from zoo.trust.metric_table import METRICS, find_metrics

    settings = read_settings(options)
    task = find_task(settings["task"])
    if options.metric is not None and options.metric not in task.monitors and task.name in METRICS:
        find_metrics(task.name, [options.metric])
    if "auto" in settings:
        raise OptionError("--recipe auto would choose anew in every fold; name the recipe, and compare two by zoo compare")
    return settings


def compare(options: argparse.Namespace, out: Output) -> None:
    """Print what runs differ in, their scores, and a test of every two."""
    if options.test is not None:
        from zoo.data.sources.folders import check_exists

        check_exists(Path(options.test))
    from zoo.select.comparison.compare import compare as compare_runs

    found = compare_runs(*options.runs, test=options.test, metric=options.metric, **labelled_settings(options))
    if options.json:
        out.json(comparison_document(found))
        return
    names = [entry.name for entry in found.entries]
    if found.settings:
        print(table(([name, *values] for name, values in found.settings.items()), ("setting", *names)), end="\n\n")
    else:
        print("no setting differs", end="\n\n")
    scores = [[name, _interval(found.metric, score)] for name, score in zip(names, found.scores, strict=True)]
    print(table(scores, ("run", found.metric)), end="\n\n")
    print("\n".join(as_typed(found.verdict(pair)) for pair in found.pairs))


def comparison_document(found: Comparison) -> dict[str, Any]:
    """Return a comparison for JSON."""
    names = [entry.name for entry in found.entries]
    pairs = []
    for pair in found.pairs:
        named = {"first": names[pair.first], "second": names[pair.second], "better": None if pair.better is None else names[pair.better]}
        pairs.append(without_nan(vars(pair)) | named | {"verdict": found.verdict(pair)})
    scores = {name: without_nan(score._asdict()) for name, score in zip(names, found.scores, strict=True)}
    return {"metric": found.metric, "runs": names, "settings": found.settings, "scores": scores, "pairs": pairs}


def document(found: CrossValidation) -> dict[str, Any]:
    """Return a result for JSON."""
    scores = {name: without_nan(one._asdict()) for name, one in found.scores.items()}
    folds = [vars(fold) | {"dir": str(found.dir / fold.folder)} for fold in found.folds]
    return {"dir": str(found.dir), "metric": found.metric, "scores": scores, "out_of_fold": found.metrics, "folds": folds}


def tables(found: CrossValidation) -> list[str]:
    """Return the folds, and the mean of each metric with its interval."""
    repeated = any(fold.repeat for fold in found.folds)
    rows = []
    for fold in found.folds:
        score, time = _cell(found.metric, fold.metrics.get(found.metric)), in_time_units(fold.seconds)
        rows.append([*([fold.repeat] if repeated else []), fold.fold, fold.train, fold.held_out, score, time])
    header = (*(["repeat"] if repeated else []), "fold", "train", "held out", found.metric, "time")
    folds = table(rows, header, right=range(len(header)))
    lines = []
    for name, one in found.scores.items():
        together = found.metrics.get(name)
        lines.append([name, _interval(name, one), _cell(name, None if math.isnan(one.std) else one.std), _cell(name, together)])
    mean = "mean of the folds" if found.without_interval else "mean of the folds [95 %]"
    means = table(lines, ("metric", mean, "std", "out of fold"), right=(2, 3))
    return [folds, means, *filter(None, [found.without_interval, found.without_width])]


def _interval(name: str, one: Summary) -> str:
    """Return the mean of a metric with its interval, if it has one."""
    if math.isnan(one.mean):
        return "undefined"
    ends = {} if math.isnan(one.low) else {f"{name}_low": one.low, f"{name}_high": one.high}
    return format_metrics({name: one.mean, **ends})[name]


def _cell(metric: str, value: float | None) -> str:
    return "" if value is None else score_text(metric, value)
