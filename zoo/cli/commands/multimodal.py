"""The commands zero-shot and wise-ft, which make classifiers of dual encoders."""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.arguments.parser import Commands
from zoo.cli.arguments.pass_options import QUOTED, labelled_options, labelled_settings
from zoo.cli.output.stdout import Output, table
from zoo.errors import OptionError
from zoo.util.numbers import score_text

ZERO_SHOT = "a classifier of images from the names of classes and a dual encoder such as CLIP, without training"
WISE_FT = "values between those of a zero-shot model and of the same model after fine-tuning"


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    command = commands.add_parser("zero-shot", help=ZERO_SHOT, description=f"{ZERO_SHOT}; see docs/multimodal.md.")
    add = command.add_argument
    add("name", metavar="NAME", help="the name of a dual encoder, such as hf/openai/clip-vit-base-patch32, or a folder of one")
    add(
        "--classes",
        metavar="A,B",
        required=True,
        help=f"the classes in the order of the outputs; 0=zero,1=one gives words for names{QUOTED}",
    )
    add("--templates", metavar="T", action="append", help="a text with {} for the class, or photo, openai, siglip, name; may be repeated")
    add("--task", default="single-label", help="single-label (default) or multi-label")
    add("--weights", metavar="FILE", help="a file of both towers; else the published one")
    add("--out", metavar="DIR", required=True, help="the folder of the result, a saved model")
    add("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=zero_shot)
    command = commands.add_parser("wise-ft", help=WISE_FT, description=f"{WISE_FT}; see docs/multimodal.md.")
    add = command.add_argument
    add("start", metavar="START", help="the folder of the model before fine-tuning")
    add("tuned", metavar="TUNED", help="the folder of the same model after it")
    add("--valid", metavar="DATA", help="labelled data that choose alpha; else it is 0.5")
    add("--alpha", metavar="A", help="share of the fine-tuned values in [0, 1], or several to choose from: 0.3,0.5,0.7")
    add("--metric", metavar="NAME", help="the metric that chooses; else the first of the task")
    add("--out", metavar="DIR", required=True, help="the folder of the result, a saved model")
    labelled_options(command)
    command.set_defaults(run=wise_ft)


def zero_shot(options: argparse.Namespace, out: Output) -> None:
    """Save a classifier and print its classes with their texts."""
    import zoo
    from zoo.cli.arguments import settings

    named = settings.names(options.classes) or []
    words = dict(word.split("=", 1) for word in named if "=" in word)
    labels = [word.partition("=")[0] for word in named]
    classes: Any = {label: words.get(label, label) for label in labels} if words else labels
    if len(set(labels)) < len(labels):
        raise OptionError(f"--classes has a name twice: {options.classes}")
    templates = options.templates[0] if options.templates and len(options.templates) == 1 else options.templates
    model = zoo.get(options.name, weights=options.weights).zero_shot(classes, templates, task=options.task)
    prompts: list[list[str]] = model.head.prompts(labels)  # type: ignore[operator]  # a zero-shot head
    folder = model.save(options.out)
    if options.json:
        out.json({"dir": str(folder), "prompts": dict(zip(labels, prompts, strict=True))})
        return
    rows = [[label, texts[0], str(len(texts))] for label, texts in zip(labels, prompts, strict=True)]
    print(table(rows, ("class", "its first text", "texts"), right=(2,)), str(folder), sep="\n\n")


def wise_ft(options: argparse.Namespace, out: Output) -> None:
    """Save the interpolated model and print what was tried.

    Raises:
        OptionError: If alpha is no number.
    """
    from zoo.select import wise_ft as interpolated

    try:
        alpha = None if options.alpha is None else [float(word) for word in options.alpha.split(",")]
    except ValueError as error:
        raise OptionError(f"--alpha {options.alpha!r} is not of the form 0.5 or 0.3,0.5,0.7") from error
    given = labelled_settings(options)
    found = interpolated(options.start, options.tuned, options.valid, out=options.out, alpha=alpha, metric=options.metric, **given)
    if options.json:
        out.json(found.record() | {"dir": str(found.dir)})
        return
    rows = [[f"{each:g}{'*' * (each == found.alpha)}", score_text(found.metric, score)] for each, score in found.scores.items()]
    print(*([table(rows, ("alpha", found.metric), right=(1,))] if rows else [f"alpha {found.alpha:g}"]), str(found.dir), sep="\n\n")
