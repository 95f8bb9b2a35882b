"""The command ``data check``, which looks at data before a model is trained on them."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.parser import Commands, pixels
from zoo.cli.commands.training import DATA
from zoo.cli.output.stdout import Output, show_log
from zoo.cli.output.terminal import terminal_width
from zoo.errors import LeakError, count, printable

if TYPE_CHECKING:
    from zoo.select.audit.findings.finding import Audit

WIDTH = 100  # columns of the findings where there is no terminal


def register(commands: Commands) -> None:
    """Add the command of this module."""
    text = "look for leaks, near duplicates, wrong labels, shortcuts and drift in data, before a model is trained on them"
    command = commands.add_parser("data", help=text, description=f"{text}. Exit code 3 where a leak between splits was found.")
    add = command.add_argument
    add("action", choices=("check",), metavar="check", help="the one thing that is done with data")
    add("data", metavar="DATA", help=DATA)
    add("--valid", metavar="DATA", help="validation data in a place of their own; else the splits of DATA")
    add("--test", metavar="DATA", help="test data in a place of their own")
    add("--task", default="single-label", help="what the labels are for: single-label, multi-label, regression or token-classification")
    add("--reads", metavar="KIND", help="image, volume, text or words; else the backbone, the columns and the files decide")
    add("--backbone", metavar="NAME", help="a backbone or saved model for features; zoo/glyphnet for images; 'none' for none")
    add("--skip", metavar="A,B", help="parts to leave out: near-duplicates, labels, shortcuts, drift")
    add("--columns", help="own names of a table's columns: file_name=file,group=patient_id")
    add("--label-columns", metavar="A,B", help="columns that hold the labels, one per class")
    add("--uncertain", choices=("mask", "positive", "negative"), help="what a label of -1 counts as")
    add("--root", metavar="DIR", help="folder of the files that a table names")
    add("--window", metavar="C,W", help="centre and width through which scans are shown, such as 40,400")
    add("--image-size", type=pixels, metavar="S", help="pixels, one number or height and width, of the images that the backbone reads")
    add("--batch-size", type=int, metavar="N", help="samples per forward of the backbone")
    add("--seed", type=int, default=0, metavar="N", help="seed of folds and samples")
    text = "where to write check.json and check.html, and what a check that goes on or is repeated need not compute again"
    add("--out", type=Path, metavar="DIR", default=Path("data-check"), help=f"{text}; data-check")
    add("--quiet", action="store_true", help="no progress")
    add("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=check)


def check(options: argparse.Namespace, out: Output) -> None:
    """Check data, and print what was found.

    Raises:
        LeakError: After all is printed and written, if samples or groups are in several splits.
    """
    from zoo.cli.arguments import settings
    from zoo.data.sources.folders import check_exists

    for given in filter(None, (options.data, options.valid, options.test)):
        check_exists(Path(given))
    if not (options.json or options.quiet):
        show_log()
    from zoo.select.audit.check import SHEET, check_data

    passed: dict[str, Any] = {name: value for name in ("image_size", "batch_size") if (value := getattr(options, name)) is not None}
    if options.window:
        passed["window"] = settings.window(options.window)
    audit = check_data(
        options.data,
        options.valid,
        options.test,
        task=options.task,
        reads=options.reads,
        backbone=options.backbone,
        columns=settings.columns(options.columns),
        label_columns=settings.names(options.label_columns, "--label-columns") or (),
        uncertain=options.uncertain,
        root=options.root,
        skip=settings.names(options.skip, "--skip") or (),
        seed=options.seed,
        out=options.out,
        quiet=options.quiet,
        **passed,
    )
    if options.json:
        out.json(audit.to_dict())
    else:
        print(_report(audit))
        print(options.out / SHEET)
    if audit.leaks:
        parts = ", ".join(dict.fromkeys(finding.check for finding in audit.leaks))
        raise LeakError(f"the splits are not independent ({parts}): what is measured on them will be too good")


def _report(audit: Audit) -> str:
    width = min(terminal_width(), WIDTH)
    splits = ", ".join(f"{name} {number}" for name, number in audit.splits.items())
    lines = [f"{audit.source}: {count(sum(audit.splits.values()), 'sample')} ({splits}), read as {audit.reads}"]
    entries: list[tuple[str, str]] = [(finding.level, f"{finding.check}: {finding.message}") for finding in audit.findings]
    entries += [("left out", f"{part}: {reason}") for part, reason in audit.left_out.items()]
    for level, message in [*([] if audit.findings else [("clean", "nothing was found")]), *entries]:
        indent = " " * 10
        text = f"{level:<8}  {printable(message)}"
        lines += textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)
