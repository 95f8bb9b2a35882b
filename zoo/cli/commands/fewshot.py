"""The command few-shot, which classifies by a few labelled samples on fixed features."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.parser import Commands
from zoo.cli.arguments.pass_options import pass_options, pass_settings
from zoo.cli.commands.using import INPUTS
from zoo.cli.output.stdout import Output, table
from zoo.errors import OptionError

if TYPE_CHECKING:
    from zoo.transfer.fewshot.few_shot import FewShot

_OF_EPISODES = ("ways", "episodes", "queries", "seed")
METHODS = "simpleshot (default), prototypes, centroid, ridge, logistic, baseline++; of a dual encoder tip-adapter, tip-adapter-f"


def register(commands: Commands) -> None:
    """Add the command of this module."""
    text = "predict from a few labelled samples on fixed features; with --shots, accuracy on episodes"
    command = commands.add_parser("few-shot", help=text, description=f"{text}; see docs/few-shot.md.")
    add = command.add_argument
    add("name", metavar="NAME", help="a name from zoo list, an alias, or the folder of a saved model")
    add("support", metavar="SUPPORT", help="labelled data: a folder of images per class, or a table")
    add("query", metavar="QUERY", nargs="?", help=f"{INPUTS}; with --shots labelled, and SUPPORT if left out")
    add("--method", default="simpleshot", help=METHODS)
    add("--shots", type=int, metavar="K", help="draw episodes with so many labelled samples of a class")
    add("--ways", type=int, metavar="N", help="classes of an episode; else all")
    add("--episodes", type=int, metavar="N", help="number of episodes (600)")
    add("--queries", type=int, metavar="N", help="most queries of a class in an episode (15)")
    add("--seed", type=int, metavar="N", help="seed of the episodes (0)")
    add("--templates", metavar="T", action="append", help="of tip-adapter: a text with {} for the class, or a set's name; may be repeated")
    add("--allow-leak", action="store_true", help="allow samples that are in both SUPPORT and QUERY")
    pass_options(command, skips=False)
    command.set_defaults(run=few_shot)


def few_shot(options: argparse.Namespace, out: Output) -> None:
    """Print predictions for the queries, or the accuracy on episodes with its 95 % interval.

    Raises:
        OptionError: If options of episodes are given without ``--shots``, or there are no queries.
    """
    given = {name: getattr(options, name) for name in _OF_EPISODES if getattr(options, name) is not None}
    if options.shots is None and given:
        raise OptionError(f"{', '.join(f'--{name}' for name in given)}: of episodes, which --shots K asks for; give it too")
    if options.shots is None and options.query is None:
        raise OptionError("zoo few-shot needs QUERY, the inputs to predict, or --shots K to draw episodes from SUPPORT")
    _print(options, out, given, _reading(options))


def _reading(options: argparse.Namespace) -> dict[str, Any]:
    from zoo.cli.arguments import settings

    found = pass_settings(options)
    if options.columns:
        found["columns"] = settings.columns(options.columns)
    if options.templates:
        found["templates"] = options.templates[0] if len(options.templates) == 1 else options.templates
    return found | {"allow_leak": options.allow_leak}


def _print(options: argparse.Namespace, out: Output, given: dict[str, Any], reading: dict[str, Any]) -> None:
    from zoo import transfer

    arguments = (options.name, options.support, options.query, options.method)
    if options.shots is None:
        result = transfer.few_shot(*arguments, **reading)
        if options.json:
            out.json({"predictions": result.predictions, "classes": result.classes, "accuracy": result.accuracy})
        else:
            print(_rows(result))
        return
    found = transfer.few_shot_episodes(*arguments, **({"shots": options.shots} | given | reading))
    record = {"accuracy": found.accuracy, "half_width": found.half_width, "episodes": len(found.accuracies)}
    if options.json:
        out.json(record | {"method": found.method, "ways": found.ways, "shots": found.shots})
    else:
        what = f"{found.ways} classes, {found.shots} of each, {len(found.accuracies)} episodes, {found.method}"
        print(f"{what}: accuracy {found.accuracy:.4f} ± {found.half_width:.4f} (95 %)")


def _rows(result: FewShot) -> str:
    rows = [
        [name, label, f"{row.max():.3f}"] for name, label, row in zip(result.names, result.predictions, result.probabilities, strict=True)
    ]
    lines = [table(rows, ("input", "prediction", "probability"))]
    return "\n".join([*lines, *([] if result.accuracy is None else [f"accuracy {result.accuracy:.4f}"])])
