"""Commands that work on data: train, eval, predict, embed, demo."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.output import Output, claim_file, figures, show_log, table
from zoo.cli.parser import Commands
from zoo.errors import OptionError

if TYPE_CHECKING:
    from zoo.adapter import TaskModel
    from zoo.backbone import Backbone

# Options of fit that decide what the data are.
OPENING = ("columns", "valid_split", "seed", "allow_leak", "drop_other_classes")
DATA = "an image folder, or a CSV, TSV or Parquet file of images or texts"
MODEL = "the folder of a saved model or run"
OTHERS = "leave out samples whose label is none of the model's classes, instead of refusing them"
INPUTS = "images or texts, or one folder or table of them"


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    _register_train(commands)
    command = commands.add_parser("eval", help="measure a saved model on labelled data")
    command.add_argument("model", metavar="MODEL", help=MODEL)
    command.add_argument("data", metavar="DATA", help=DATA)
    command.add_argument("--split", help="only this split of the data")
    command.add_argument("--drop-other-classes", action="store_true", help=OTHERS)
    command.add_argument("--intervals", type=float, metavar="SHARE", help="add confidence intervals, such as 0.95, drawing patients")
    command.add_argument("--specificity", type=float, metavar="SHARE", help="add the sensitivity at this specificity, such as 0.95")
    _common(command, columns=True)
    command.set_defaults(run=evaluate)
    command = commands.add_parser("predict", help="the label of each input, and the probability of every class")
    command.add_argument("model", metavar="MODEL", help=MODEL)
    command.add_argument("inputs", metavar="INPUTS", nargs="+", help=INPUTS)
    _common(command, columns=True)
    command.set_defaults(run=predict)
    command = commands.add_parser("embed", help="write the pooled features of inputs")
    command.add_argument("model", metavar="MODEL", help=f"{MODEL}, or the name of a backbone")
    command.add_argument("inputs", metavar="INPUTS", nargs="+", help=INPUTS)
    command.add_argument("--out", type=Path, metavar="FILE", help="the .npz file to write: 'features' (n, dim) and 'inputs' (n,)")
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    _common(command, columns=True)
    command.set_defaults(run=embed)
    command = commands.add_parser("demo", help="transfer the built-in backbone to handwritten digits, beside training from scratch")
    command.add_argument("--out", type=Path, metavar="DIR", help="where to write the picture and the runs")
    command.set_defaults(run=demo)


def _common(command: argparse.ArgumentParser, *, columns: bool = False) -> None:
    if columns:
        command.add_argument("--columns", help="own names of a table's columns: file_name=file,group=patient_id")
    command.add_argument("--batch-size", type=int, metavar="N", help="samples per forward")
    command.add_argument("--json", action="store_true", help="print one JSON document")


def _register_train(commands: Commands) -> None:
    command = commands.add_parser("train", help="fine-tune a backbone on your data; the run directory is a saved model")
    add = command.add_argument
    add("name", metavar="NAME", help="a name from zoo list, an alias, or the folder of a saved model")
    add("data", metavar="DATA", help=DATA)
    add("--valid", metavar="DATA", help="data to choose the best epoch by; else a split of DATA, else 20 %% held out")
    add("--weights", metavar="FILE", help="a safetensors file, or 'none' for random values")
    add("--recipe", help="linear-probe, full, layer-decay (default) or lp-ft")
    add("--epochs", type=int, metavar="N", help="epochs of all phases together")
    add("--batch-size", type=int, metavar="N", help="samples per forward")
    add("--lr", type=float, help="learning rate of the head, per step")
    add("--image-size", type=int, metavar="S", help="height and width in pixels")
    add("--seed", type=int, metavar="N", help="decides everything that is random")
    add("--out", metavar="DIR", help="the run directory")
    add("--resume", action="store_true", default=None, help="go on from the newest checkpoint in --out")
    add("--columns", help="own names of a table's columns: file_name=file,group=patient_id")
    add("--valid-split", metavar="VALUE", help="value of the split column to hold out")
    add("--classes", metavar="A,B", help="the classes, in the order of the model's outputs; else all that the data have")
    add("--drop-other-classes", action="store_true", default=None, help="leave out samples of none of --classes")
    add("--head", help="linear, mlp, tokens, or a plugin's")
    add("--task", help="single-label, multi-label, regression or token-classification")
    add("--set", metavar="KEY=VALUE", action="append", help="an option of the recipe; may be repeated")
    add("--head-set", metavar="KEY=VALUE", action="append", help="an option of the head, such as hidden=256")
    add("--model-set", metavar="KEY=VALUE", action="append", help="an option of the architecture, such as drop_path_rate=0.1")
    add("--config", type=Path, metavar="FILE", help="a TOML file with any of these settings; flags win over it")
    add("--quiet", action="store_true", default=None, help="no progress")
    command.set_defaults(run=train)


def train(options: argparse.Namespace, out: Output) -> None:
    """Fine-tune a backbone; everything that can be checked is checked before torch is imported."""
    from zoo.cli import settings

    flags = {key: getattr(options, key, None) for key in (*settings.PLAIN, *settings.FIT)}
    flags |= {"classes": settings.names(options.classes)}
    flags |= {"columns": settings.columns(options.columns), "options": settings.pairs(options.set, "--set")}
    flags |= {"head_options": settings.pairs(options.head_set, "--head-set")}
    flags |= {"model_options": settings.pairs(options.model_set, "--model-set")}
    _train(options.name, options.data, settings.merge(options.config, flags))


def evaluate(options: argparse.Namespace, out: Output) -> None:
    """Print the metrics of a saved model on labelled data."""
    import zoo
    from zoo.cli import settings

    _check_saved(options.model)
    model, data = zoo.load(options.model), options.data
    given = {"split": options.split, "columns": settings.columns(options.columns) or None}
    given = {key: value for key, value in given.items() if value is not None}
    if options.drop_other_classes:
        from zoo.data.open import open_data
        from zoo.data.read import kind_of

        opening: dict[str, Any] = {"task": model.task, "classes": model.labels, "reads": kind_of(model.inputs, model.task)}
        data, given = open_data(data, labelled=True, drop_other_classes=True, **opening, **given), {}
    wanted = {name: getattr(options, name) for name in ("batch_size", "intervals", "specificity")}
    metrics = model.evaluate(data, **given, **{name: value for name, value in wanted.items() if value is not None})
    if options.json:
        out.json({name: float(value) for name, value in metrics.items()})
    else:
        print(table(((name, f"{value:.4f}") for name, value in metrics.items()), ("metric", "value"), right=(1,)))


def predict(options: argparse.Namespace, out: Output) -> None:
    """Print the label of each input and the probability of every class."""
    import zoo
    from zoo.cli import settings

    _check_saved(options.model)
    model = zoo.load(options.model)
    source, names = _inputs(options.inputs, model, settings.columns(options.columns))
    given = {} if options.batch_size is None else {"batch_size": options.batch_size}
    if model.task in ("regression", "token-classification"):
        labels = model.predict(source, **given)
        rows: list[dict[str, Any]] = [{"input": name, "label": label} for name, label in zip(names, labels, strict=True)]
    else:  # one pass gives both the probabilities and the labels that follow from them
        classes = [str(label) for label in model.labels or range(model.num_classes)]
        shares = [dict(zip(classes, map(float, row), strict=True)) for row in model.predict_proba(source, **given)]
        rows = [
            {"input": name, "label": _label(share, model.task), "probabilities": share} for name, share in zip(names, shares, strict=True)
        ]
    if options.json:
        out.json(rows)
    else:
        print(table((_prediction(row) for row in rows), ("input", "prediction", "probability")))


def embed(options: argparse.Namespace, out: Output) -> None:
    """Write the pooled features of inputs to an ``.npz`` file, or print them as JSON.

    Raises:
        OptionError: If there is nowhere to put them.
        OutputExistsError: If the file exists, unless it may be overwritten. Nothing is computed before this is known.
        OutputPermissionError: If the file cannot be written.
    """
    if options.out is None and not options.json:
        raise OptionError("zoo embed needs --out FILE, or --json to print the features")
    target = None if options.out is None else claim_file(options.out, ".npz", overwrite=options.overwrite)
    import numpy as np

    import zoo
    from zoo.cli import settings
    from zoo.lookup import foreign_folder

    saved = (Path(options.model) / "config.json").is_file() and foreign_folder(options.model) is None
    model = zoo.load(options.model) if saved else zoo.get(options.model).adapt(num_classes=2)  # the head is never run
    source, names = _inputs(options.inputs, model, settings.columns(options.columns))
    features = model.embed(source, **({} if options.batch_size is None else {"batch_size": options.batch_size}))
    if target is not None:
        np.savez(target, features=features, inputs=np.array(names))
        print(f"{target}: features of shape {features.shape}")
    if options.json:
        where = {"embeddings": features} if target is None else {"file": target}
        out.json({"inputs": names, "dim": features.shape[1], **where})


def demo(options: argparse.Namespace, out: Output) -> None:
    """Run the demonstration of the built-in backbone."""
    from zoo.builtin.demo import run_demo

    run_demo(options.out)


def _train(name: str, data: str, settings: dict[str, Any]) -> None:
    from zoo.data.open import open_train_valid
    from zoo.data.read import kind_of
    from zoo.registry import default_registry

    if settings["head"]:
        default_registry().head(settings["head"])  # one that does not exist ends here, before torch is imported
    backbone = _backbone(name, settings)
    fit = settings["fit"] | {"columns": settings["columns"]}
    opening = {key: fit[key] for key in OPENING if key in fit}
    opening |= {"task": settings["task"], "classes": settings["classes"], "reads": kind_of(backbone.spec.inputs, settings["task"])}
    first, _ = open_train_valid(data, settings["valid"], **opening)
    classes = first.classes
    outputs = len(classes) or (1 if first.targets is None or first.targets.ndim == 1 else first.targets.shape[1])
    model = backbone.adapt(
        outputs,
        task=settings["task"],
        head=settings["head"] or "linear",
        in_chans=settings["in_chans"],
        labels=classes or None,
        seed=fit.get("seed", 0),
        **settings["head_options"],
    )
    fit |= {"recipe": settings["recipe"], "out": settings["out"], "resume": bool(settings["resume"]), "quiet": bool(settings["quiet"])}
    if not settings["quiet"]:  # not sooner: what is told of the data would be told twice
        show_log()
    # The sources and not the tables, so that run.json keeps how they were read.
    run = model.fit(data, settings["valid"], **fit)
    print(f"{figures(run.metrics)}\n{run.dir}")


def _backbone(name: str, settings: dict[str, Any]) -> Backbone:
    """Find the backbone, with the size of the images as a build option where the architecture is fixed to one."""
    import zoo
    from zoo.declare import Image

    inputs = zoo.get(name).spec.inputs  # a name that does not exist ends here, before torch is imported
    options, size = dict(settings["model_options"]), settings["fit"].get("image_size")
    if isinstance(inputs, Image) and inputs.fixed_size and size is not None:
        options.setdefault("img_size", size)
    weights = False if settings["weights"] in ("none", False) else settings["weights"]
    return zoo.get(name, weights=weights, allow_partial=bool(settings["allow_partial"]), **options)


def _check_saved(folder: str) -> None:
    """Refuse what is no saved model before torch is imported."""
    from zoo.cards import read_config

    read_config(Path(folder))


def _inputs(words: Sequence[str], model: TaskModel, columns: dict[str, str]) -> tuple[Any, list[str]]:
    """Return a source for prediction and the names of its samples; one word may be a folder or a table."""
    from zoo.data.open import open_data
    from zoo.data.read import kind_of

    reads = kind_of(model.inputs, model.task)
    opened = open_data(words[0] if len(words) == 1 else list(words), columns=columns, labelled=False, reads=reads)
    return opened, [" ".join(item) if isinstance(item, list | tuple) else str(item) for item in opened.inputs]


def _label(shares: dict[str, float], task: str) -> str | list[str]:
    likely = [label for label, share in shares.items() if share > 0.5]
    return likely if task == "multi-label" else max(shares, key=shares.__getitem__)


def _prediction(row: dict[str, Any]) -> tuple[object, ...]:
    label, shares = row["label"], row.get("probabilities", {})
    chosen = label if isinstance(label, list | tuple) else [label]
    return row["input"], ", ".join(map(str, chosen)) or "none", ", ".join(f"{shares[one]:.3f}" for one in chosen if one in shares)
