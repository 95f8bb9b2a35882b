"""The command adapt-domain, which adapts a model to another domain without its labels."""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.parser import Commands
from zoo.cli.commands.training import VALID, add_run_arguments, read_settings
from zoo.cli.job import find_declared, job_of
from zoo.cli.output.stdout import Output, metrics_line, show_log, table
from zoo.engine.runtime.progress import in_time_units
from zoo.engine.runtime.signals import ending_early
from zoo.errors import OptionError

if TYPE_CHECKING:
    from zoo.engine.rundir.run_folder import Run

NUMBERS = ("accuracy", "infomax", "entropy", "snd", "dev")  # of a candidate, as columns


def register(commands: Commands) -> None:
    """Add the command of this module."""
    text = "adapt a backbone to unlabelled data of another domain, by the method that validators prefer"
    command = commands.add_parser("adapt-domain", help=text)
    add_run_arguments(command)
    add = command.add_argument
    text = "unlabelled data of the other domain; labels that they have are not used. With --source-free DATA is the target"
    add("target", metavar="TARGET", nargs="?", help=text)
    add("--source-free", action="store_true", help="adapt the saved model NAME to DATA without its source (SHOT)")
    add("--valid", metavar="DATA", help=VALID.replace("to choose the best epoch by", "of the source domain"))
    add("--recipe", help="of every candidate, as for train")
    add("--candidates", metavar="A,B", help="methods to compare with source-only; else a small set")
    add("--budget", metavar="TIME", help="time that the candidates may take, such as 90s, 10min or 1h")
    add("--json", action="store_true", help="one JSON document with the result")
    command.set_defaults(run=adapt)


def adapt(options: argparse.Namespace, out: Output) -> None:
    """Compare the methods and keep one; as much as possible is checked before torch is imported.

    Raises:
        OptionError: If an option contradicts the comparison.
    """
    from zoo.data.sources.folders import check_exists

    if options.source_free:
        run = _without_source(options)
        out.json({"dir": str(run.dir), "kept": run.kept}) if options.json else print(run.dir)
        return
    if options.target is None:
        raise OptionError("TARGET is missing: zoo adapt-domain NAME SOURCE TARGET, or with --source-free: RUN TARGET")
    if options.recipe == "auto":
        raise OptionError("--recipe auto: the method is chosen here; leave it out, or name a recipe")
    budget, options.budget, options.objective = options.budget, None, None  # the budget is that of the method, not of a recipe
    check_exists(Path(options.target))
    settings = read_settings(options)
    job = job_of(find_declared(options.name, settings), options.data, settings)
    if not settings["quiet"]:
        show_log()
    from zoo.transfer import DomainAdaptation
    from zoo.transfer.domain.choosing.auto import run_adapted

    method = DomainAdaptation(options.target, candidates=options.candidates, budget=budget)
    with ending_early():
        run = run_adapted(replace(job, objective=method), method, settings["out"], resume=bool(settings["resume"]))
    if options.json:
        rows: dict[str, Any] = {"candidates": run.candidates, "choice": run.choice}
        out.json({"dir": str(run.dir), "metrics": run.metrics, "kept": run.kept, "monitor": run.monitor, **rows})
    else:
        print(method_table(run), end="\n\n")
        print(metrics_line(run.metrics), str(run.dir), sep="\n")


def _without_source(options: argparse.Namespace) -> Run:
    """Adapt a saved model to a target alone."""
    given = [name for name in ("target", "valid", "candidates", "budget", "classes", "task", "head") if getattr(options, name)]
    if given:
        raise OptionError(f"--source-free adapts a saved model to DATA alone; leave out: {', '.join(given)}")
    settings = read_settings(options)
    from zoo.saved.load import load
    from zoo.transfer import adapt_source_free

    if not settings["quiet"]:
        show_log()
    how: dict[str, Any] = {name: settings[name] for name in ("recipe", "out")}
    how |= {name: bool(settings[name]) for name in ("resume", "quiet")}
    with ending_early():
        return adapt_source_free(load(options.name), options.data, **how, **settings["fit"])


def method_table(run: Run) -> str:
    """Return what each validator said of each method, notes and the reason, at most 80 columns wide."""
    rows = []
    for row in run.candidates:
        if "accuracy" in row:
            numbers = ["" if row[name] is None else f"{row[name]:.3f}" for name in NUMBERS]
            rows.append([row["method"] + ("*" if row["chosen"] else ""), *numbers, len(row["votes"]), in_time_units(row["seconds"])])
    lines = [table(rows, ["method", "source", *NUMBERS[1:], "votes", "time"], right=(1, 2, 3, 4, 5, 6, 7))]
    lines += [textwrap.fill(f"{row['method']}: {row['note']}", 80) for row in run.candidates if row["note"]]
    return "\n".join([*lines, textwrap.fill(f"* {run.choice}", 80)])
