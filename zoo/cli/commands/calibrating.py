"""The command calibrate, which measures a saved model's temperature, prediction sets and outliers on held-out data."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.cli.commands.training import DATA
from zoo.cli.commands.using import MODEL, pass_options, pass_settings
from zoo.cli.output import Output, show_log, table
from zoo.cli.parser import Commands
from zoo.util.start_up import uncollected


def register(commands: Commands) -> None:
    """Add the command of this module."""
    text = "make the probabilities of a saved model honest on held-out data, for zoo predict --sets and --ood too"
    command = commands.add_parser("calibrate", help=text)
    command.add_argument("model", metavar="MODEL", help=f"{MODEL}; its calibration is written there")
    command.add_argument("data", metavar="DATA", help=f"held-out data, such as the validation data: {DATA}")
    command.add_argument("--split", help="only this split of the data")
    command.add_argument("--label-columns", metavar="A,B", help="columns that hold the labels, one per class")
    command.add_argument("--uncertain", choices=("mask", "positive", "negative"), help="what a label of -1 counts as; else it is refused")
    command.add_argument("--drop-other-classes", action="store_true", help="leave out samples whose label is none of the model's classes")
    pass_options(command)
    command.set_defaults(run=calibrate)


def calibrate(options: argparse.Namespace, out: Output) -> None:
    """Calibrate a saved model, write that into its folder and print what was found.

    Raises:
        OutputPermissionError: If the folder cannot be written.
    """
    from zoo.cli import settings
    from zoo.data.sources.folders import check_exists
    from zoo.saved.config import read_config

    folder = Path(options.model)
    config = read_config(folder)  # raises before torch is imported if there is no saved model
    check_exists(Path(options.data))
    given: dict[str, Any] = pass_settings(options) | {"columns": settings.columns(options.columns)}
    given |= {name: getattr(options, name) for name in ("split", "uncertain", "drop_other_classes")}
    given["label_columns"] = settings.names(options.label_columns, "--label-columns")
    if not options.json:
        show_log()
    with uncollected():
        from zoo.saved.calibration import update_calibration
        from zoo.saved.load import open_model
        from zoo.saved.save import writing

        model = open_model(folder, config)
    found = model.calibrate(options.data, **{name: value for name, value in given.items() if value is not None})
    assert model.calibration is not None, "the model was calibrated"
    with writing(folder):
        update_calibration(folder, model.calibration, model.thresholds)
    if options.json:
        out.json(asdict(found))
        return
    print(f"{folder}: calibrated on {found.samples} samples, for prediction sets of up to {found.highest_level:.4g}")
    if found.before:
        rows = ((name, f"{value:.4f}", f"{found.after[name]:.4f}") for name, value in found.before.items())
        print(f"temperature {found.temperature:.4g}", table(rows, ("metric", "before", "after"), right=(1, 2)), sep="\n")
