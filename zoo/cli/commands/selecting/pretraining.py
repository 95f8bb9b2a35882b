"""The command pretrain, which continues the pretraining of a backbone on unlabelled data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zoo.cli.arguments.parser import Commands, pixels
from zoo.cli.output.stdout import Output, show_log
from zoo.cli.output.wording import as_typed
from zoo.engine.runtime.signals import ending_early

_OWN = ("epochs", "batch_size", "lr", "image_size", "seed")


def register(commands: Commands) -> None:
    """Add the command of this module."""
    text = "continue the pretraining of a backbone on unlabelled data, before it is adapted"
    command = commands.add_parser("pretrain", help=text, description=f"{text}; see docs/self-supervised.md.")
    add = command.add_argument
    add("name", metavar="NAME", help="a name from zoo list, an alias, or the folder of a saved model")
    add("data", metavar="UNLABELLED", help="a folder or list of images, or a table of texts; labels are not read")
    add("--method", default="simclr", help="simclr (default) or dino for images, mae for ViTs, mlm for texts")
    add("--probe", metavar="DATA", help="labelled data for a linear probe before and after; where it got worse, the old values are kept")
    add("--weights", metavar="FILE", help="as for train; 'none': random values")
    add("--allow-partial", action="store_true", help="as for train")
    add("--model-set", metavar="KEY=VALUE", action="append", help="an option of the architecture, such as drop_path_rate=0.1")
    add("--out", metavar="DIR", help="folder of the result, which zoo train takes as NAME")
    add("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    add("--set", metavar="KEY=VALUE", action="append", help="an option of the run or of the method, such as temperature=0.2")
    add("--quiet", action="store_true", help="no progress")
    add("--json", action="store_true", help="one JSON document with the result")
    for flag, kind in (("--epochs", int), ("--batch-size", int), ("--lr", float), ("--image-size", pixels), ("--seed", int)):
        add(flag, type=kind, metavar="N", help="as for train")
    command.set_defaults(run=pretrain)


def pretrain(options: argparse.Namespace, out: Output) -> None:
    """Pretrain, and print the verdict and the folder."""
    from zoo.cli.arguments import settings
    from zoo.data.sources.folders import check_exists

    check_exists(Path(options.data))
    given: dict[str, Any] = {name: getattr(options, name) for name in _OWN if getattr(options, name) is not None}
    given |= settings.pairs(options.set, "--set")
    from zoo.cli.job import configured_backbone
    from zoo.models.find import find_backbone
    from zoo.transfer.pretraining.pretrain import pretrain as run

    if not options.quiet:
        show_log()
    told = {
        "weights": options.weights,
        "allow_partial": options.allow_partial,
        "model_options": settings.pairs(options.model_set, "--model-set"),
    }
    backbone = configured_backbone(find_backbone(options.name), told | {"fit": given})
    shared: dict[str, Any] = {"probe": options.probe, "out": options.out, "resume": options.resume, "quiet": options.quiet}
    with ending_early():
        found = run(backbone, options.data, options.method, **shared, **given)
    if options.json:
        probes = {"probe_before": found.probe_before, "probe_after": found.probe_after}
        out.json({"dir": str(found.dir), "learned": found.learned, "verdict": found.verdict, **probes, "metrics": found.run.metrics})
    else:
        print(as_typed(found.verdict), str(found.dir), sep="\n")
