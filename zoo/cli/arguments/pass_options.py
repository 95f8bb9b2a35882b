"""Flags of a pass of a saved model over data, and of the labels that it is measured by."""

from __future__ import annotations

import argparse
from typing import Any

from zoo.cli.arguments.parser import pixels
from zoo.declare import OVERFLOWS

QUOTED = """; a name with a comma is quoted as in CSV: '"A, small",B'"""  # of names joined by commas
OTHERS = "leave out samples whose label is none of the model's classes, instead of refusing them"


def pass_options(command: argparse.ArgumentParser, *, skips: bool = True) -> None:
    """Add the options of a pass over data.

    Args:
        command: The command.
        skips: Whether inputs that cannot be read may be skipped.
    """
    command.add_argument("--root", metavar="DIR", help="folder of the files that a table names, with or without their endings")
    command.add_argument("--columns", help="own names of a table's columns: file_name=file,group=patient_id")
    command.add_argument("--window", metavar="C,W", help="centre and width through which scans are shown, such as 40,400")
    command.add_argument(
        "--image-size",
        type=pixels,
        metavar="S",
        help="pixels of the images, one number or height and width, where they differ from the model's",
    )
    command.add_argument("--overflow", choices=OVERFLOWS, help="what becomes of texts that are too long, where it differs from the model's")
    command.add_argument("--max-length", type=int, metavar="N", help="most tokens of a text, where they differ from the model's")
    command.add_argument("--batch-size", type=int, metavar="N", help="samples per forward")
    if skips:
        text = "at an input that cannot be read: stop with an error (default), or skip it; its row is empty and has the error"
        command.add_argument("--on-error", choices=("stop", "skip"), default="stop", help=text)
    command.add_argument("--device", help="auto (default, a GPU where there is one), cpu, cuda or mps")
    command.add_argument("--workers", type=int, metavar="N", help="processes that read and decode inputs; 0 reads in this one")
    command.add_argument("--precision", help="auto (default, bf16 on GPUs that have it), fp32 or bf16")
    command.add_argument("--quiet", action="store_true", help="no progress and no notes: warnings and the result alone")
    command.add_argument("--json", action="store_true", help="print one JSON document")


def pass_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a pass that were given."""
    from zoo.cli.arguments import settings

    given = {
        "batch_size": options.batch_size,
        "workers": options.workers,
        "device": options.device,
        "precision": options.precision,
        "window": settings.window(options.window),
        "on_error": getattr(options, "on_error", None),
        "root": options.root,
        "overflow": options.overflow,
        "max_length": options.max_length,
        "image_size": options.image_size,
        "prompt_name": getattr(options, "prompt_name", None),
        "split": getattr(options, "split", None),
    }
    return {name: value for name, value in given.items() if value is not None}


def labelled_options(command: argparse.ArgumentParser, split: str = "only this split of the data") -> None:
    """Add the options of a pass over labelled data."""
    command.add_argument("--split", help=split)
    command.add_argument("--drop-other-classes", action="store_true", help=OTHERS)
    command.add_argument("--label-columns", metavar="A,B", help="columns that hold the labels, one per class")
    command.add_argument("--uncertain", choices=("mask", "positive", "negative"), help="what a label of -1 counts as; else it is refused")
    pass_options(command)


def labelled_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a pass over labelled data that were given."""
    from zoo.cli.arguments import settings

    given = pass_settings(options) | {"uncertain": options.uncertain}
    given |= {"columns": settings.columns(options.columns) or None, "drop_other_classes": options.drop_other_classes or None}
    given |= {"label_columns": settings.names(options.label_columns, "--label-columns")}
    return {name: value for name, value in given.items() if value is not None and (name, value) != ("on_error", "stop")}
