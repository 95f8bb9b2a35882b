"""The commands soup and ensemble, which make one model of several runs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.parser import Commands
from zoo.cli.arguments.pass_options import labelled_options, labelled_settings
from zoo.cli.output.stdout import Output, show_log, table
from zoo.errors import check_together
from zoo.util.numbers import score_text

if TYPE_CHECKING:
    from zoo.select.merging.candidates import Merged

TEXTS = {
    "soup": "average the values of runs of one backbone, each where held-out data do not get worse: one model, no slower",
    "ensemble": "choose runs whose mean probabilities predict held-out data best, and save them as one model",
}


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    for name, text in TEXTS.items():
        command = commands.add_parser(name, help=text)
        add = command.add_argument
        add("runs", metavar="RUN", nargs="*", help="folders of runs, or of a cross-validation, whose folds are taken")
        add("--valid", metavar="DATA", help="labelled data that none of the runs was trained on; must be given")
        add("--metric", metavar="NAME", help="the metric that chooses; else the first of the task")
        if name == "soup":
            add("--uniform", action="store_true", help="average all runs, and say if that is worse than the best alone")
        add("--out", metavar="DIR", help="the folder of the result, a saved model; must be given")
        labelled_options(command)
        command.set_defaults(run=merge)


def merge(options: argparse.Namespace, out: Output) -> None:
    """Make one model of several runs, and print what was tried."""
    if not (options.json or options.quiet):
        show_log()
    from zoo.select.merging.candidates import checked_candidates

    given: dict[str, Any] = {}
    what: dict[str, Any] = {"out": options.out, "metric": options.metric}
    check_together(  # so that a flag that cannot be read is told with the rest; what is read is checked again with it
        f"zoo {options.command} cannot run with these:",
        lambda: given.update(labelled_settings(options)),
        lambda: checked_candidates(options.runs, options.valid, **what, options=given, averaged=options.command == "soup"),
    )
    given |= what
    if options.command == "soup":
        from zoo.select.merging.soup import soup

        found = soup(options.runs, options.valid, uniform=options.uniform, **given)
    else:
        from zoo.select.merging.greedy_ensemble import ensemble

        found = ensemble(options.runs, options.valid, **given)
    if options.json:
        out.json(found.record(options.command) | {"dir": str(found.dir)})
    else:
        score = score_text(found.metric, found.score)
        print(_steps(found), f"{found.metric} {score} with {len(found.kept)} of {len(found.scores)}", str(found.dir), sep="\n\n")


def _steps(found: Merged) -> str:
    alone = {run: score_text(found.metric, score) for run, score in found.scores.items()}
    first = found.kept[0]
    rows = [[first, alone[first], alone[first], "the best alone"]]
    for step in found.steps:
        rows.append([step["run"], alone[step["run"]], score_text(found.metric, step["score"]), "added" if step["added"] else "left out"])
    return table(rows, ("run", f"{found.metric} alone", "with it", ""), right=(1, 2))
