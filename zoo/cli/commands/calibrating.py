"""The command calibrate, which measures a saved model's temperature, prediction sets and outliers on held-out data."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from zoo.cli.arguments.parser import Commands
from zoo.cli.arguments.pass_options import labelled_options, labelled_settings
from zoo.cli.arguments.saved_model import config_of
from zoo.cli.commands.training import DATA
from zoo.cli.commands.using import MODEL
from zoo.cli.output.stdout import Output, show_log, table
from zoo.cli.start_up import uncollected
from zoo.util.numbers import score_text


def register(commands: Commands) -> None:
    """Add the command of this module."""
    text = "make the probabilities of a saved model honest on held-out data, for zoo predict --sets and --ood too"
    command = commands.add_parser("calibrate", help=text)
    command.add_argument("model", metavar="MODEL", help=f"{MODEL}; its calibration is written there")
    command.add_argument("data", metavar="DATA", help=f"held-out data, such as the validation data: {DATA}")
    labelled_options(command)
    command.set_defaults(run=calibrate)


def calibrate(options: argparse.Namespace, out: Output) -> None:
    """Calibrate a saved model, write that into its folder and print what was found.

    Raises:
        OutputPermissionError: If the folder cannot be written.
    """
    from zoo.data.sources.folders import check_exists

    folder = Path(options.model)
    config = config_of(options.model, [options.data], "zoo calibrate MODEL DATA")  # raises before torch is imported
    check_exists(Path(options.data))
    given = labelled_settings(options)
    if not (options.json or options.quiet):
        show_log()
    with uncollected():
        from zoo.saved.calibration import update_calibration
        from zoo.saved.load import open_model
        from zoo.saved.save import writing

        model = open_model(folder, config)
    found = model.calibrate(options.data, **given)
    assert model.calibration is not None, "the model was calibrated"
    with writing(folder):
        update_calibration(folder, model.calibration, model.thresholds)
    if options.json:
        out.json(asdict(found))
        return
    print(f"{folder}: calibrated on {found.samples} samples, for prediction sets of up to {found.highest_level:.4g}")
    if found.before:
        rows = ((name, score_text(name, value), score_text(name, found.after[name])) for name, value in found.before.items())
        print(f"temperature {found.temperature:.4g}", table(rows, ("metric", "before", "after"), right=(1, 2)), sep="\n")
