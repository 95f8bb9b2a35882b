"""The commands train and demo."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.parser import Commands, number_or_auto, pixels, whole_or_auto
from zoo.cli.arguments.pass_options import QUOTED
from zoo.cli.job import find_declared, job_of
from zoo.cli.launch import launch_ranks
from zoo.cli.output.rank_errors import errors_once
from zoo.cli.output.stdout import Output, format_metrics, format_parameters, metrics_line, show_log, table
from zoo.cli.output.wording import as_typed
from zoo.engine.runtime.launch_env import launched, rank
from zoo.engine.runtime.progress import in_time_units
from zoo.engine.runtime.signals import ending_early
from zoo.errors import OptionError
from zoo.transfer.names import METHODS
from zoo.util.numbers import in_units, score_text

if TYPE_CHECKING:
    from zoo.engine.distributed.ranks import Ranks
    from zoo.engine.options.config import Config
    from zoo.engine.rundir.run_folder import Run

WITH_OPTIONS = ("train", "plan", "cv", "tune", "adapt-domain")  # commands that take the options of a run
SWITCH = "-"  # placeholder of flags without a value
# Parsers of flags whose values are not text.
PARSE: Mapping[str, Callable[[str], Any]] = MappingProxyType(
    {"epochs": int, "batch_size": whole_or_auto, "lr": number_or_auto, "image_size": pixels, "seed": int}
)
RECIPES = "layer-decay (default), linear-probe, lp-ft, full, top, gradual, lora, bitfit"
VALID = "data to choose the best epoch by; else a split of DATA, else 20 %% held out (none of up to 16 samples)"
DATA = "an image folder, or a CSV, TSV or Parquet file of images or texts; of several tasks also kind=DATA,age=DATA"


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    _register_train(commands)
    command = commands.add_parser("demo", help="transfer the built-in backbone to handwritten digits, beside training from scratch")
    command.add_argument("--out", type=Path, metavar="DIR", help="where to write the picture and the runs")
    command.set_defaults(run=demo)


def _register_train(commands: Commands) -> None:
    command = commands.add_parser("train", help="fine-tune a backbone on your data; the run directory is a saved model")
    add_arguments(command)
    command.add_argument("--json", action="store_true", help="one JSON document with the result")
    command.set_defaults(run=train, surplus="; validation data are given as --valid DATA")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments for the backbone, the data and the run."""
    add_run_arguments(command)
    add = command.add_argument
    valid = command.add_mutually_exclusive_group()
    valid.add_argument("--valid", metavar="DATA", help=VALID)
    valid.add_argument("--no-valid", action="store_false", dest="valid", default=None, help="train on all of DATA, keep the last epoch")
    add("--recipe", help=f"{RECIPES}, or auto to try")
    add("--objective", metavar="METHOD", help=f"{', '.join(METHODS) or 'a method of transfer'}; its options are given as --set")
    add("--budget", metavar="TIME", help="time that --recipe auto may take, such as 90s, 10min or 1h")
    add("--baselines", action="store_true", default=None, help="also train simpler methods, and say if one is better")
    add("--num-processes", type=int, metavar="N", help="train with so many processes on this machine; see docs/several-devices.md")


def add_run_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments for the backbone, the data and a run, but those that say what judges it and how many processes it has."""
    add = command.add_argument
    add("name", metavar="NAME", help="a name from zoo list, an alias, or the folder of a saved model")
    add("data", metavar="DATA", help=DATA)
    add(
        "--weights",
        metavar="FILE",
        help="safetensors or a checkpoint of torch.save: a file, a folder or an https URL; 'none': random values",
    )
    add("--allow-partial", action="store_true", default=None, help="train although the weights do not fill the backbone")
    add("--out", metavar="DIR", help="the run directory")
    add("--resume", action="store_true", default=None, help="go on from the newest checkpoint in --out")
    add("--classes", metavar="A,B", help=f"the classes, in the order of the model's outputs; else all that the data have{QUOTED}")
    add(
        "--group",
        metavar="COL",
        help="column, or attribute of DICOM headers, whose values no split or fold divides; none: no groups; short for --columns group=COL",
    )
    add(
        "--head",
        help="linear, mlp, tokens, zero-shot (of a dual encoder, from the names of the classes; of flyp the default), or a plugin's",
    )
    add("--task", help="single-label, multi-label, regression or token-classification; several as kind=single-label,age=regression")
    add("--set", metavar="KEY=VALUE", action="append", help="an option of the recipe or of the objective; may be repeated")
    add("--head-set", metavar="KEY=VALUE", action="append", help="an option of the head, such as hidden=256")
    add("--model-set", metavar="KEY=VALUE", action="append", help="an option of the architecture, such as drop_path_rate=0.1")
    add("--config", type=Path, metavar="FILE", help="a TOML file with any of these settings; flags win over it")
    add("--quiet", action="store_true", default=None, help="no progress")


def add_option_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of the options of a run that declare one."""
    from zoo.engine.options.config import DECLARED
    from zoo.engine.options.reference import short_help

    for name, option in DECLARED.items():
        if option.flag == SWITCH:
            command.add_argument(_flag(name), action="store_true", default=None, help=short_help(name))
        elif option.flag:
            command.add_argument(_flag(name), type=PARSE.get(name, str), metavar=option.flag, help=short_help(name))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def train(options: argparse.Namespace, out: Output) -> None:
    """Fine-tune a backbone; as much as possible is checked before torch is imported."""
    merged = read_settings(options)
    if "auto" in merged and (options.num_processes or 1) > 1:
        raise OptionError("--num-processes: the candidates of --recipe auto run in one process; leave it out, or name a recipe")
    if merged["baselines"]:
        _check_baselines(merged, options.num_processes)
    launch_ranks(options.words, options.num_processes, check=lambda: find_declared(options.name, merged))
    with errors_once(debug=options.debug), ending_early():
        run = _train(options.name, options.data, merged, started=options.started)
    if rank():
        return
    auto = {"candidates": run.candidates, "choice": run.choice} if run.candidates else {}
    compared = {"baselines": run.baselines, "verdict": run.verdict} if run.verdict else {}
    if options.json:
        out.json({"dir": str(run.dir), "metrics": run.metrics, "kept": run.kept, "monitor": run.monitor, **auto, **compared})
        return
    if auto:
        print(candidate_table(run), end="\n\n")
    if compared:
        scores = ["" if row["score"] is None else score_text(row["metric"], row["score"]) for row in run.baselines]
        rows = [[row["name"], score, row["note"]] for row, score in zip(run.baselines, scores, strict=True)]
        print(table(rows, ("baseline", run.baselines[0]["metric"], "note"), right=(1,)), end="\n\n")
        print(textwrap.fill(as_typed(run.verdict), 80))
    print(*filter(None, (metrics_line(run.metrics), str(run.dir))), sep="\n")


def _check_baselines(settings: dict[str, Any], processes: int | None) -> None:
    faults = [("recipe auto", "auto" in settings), ("--no-valid", settings["valid"] is False), ("--num-processes", (processes or 1) > 1)]
    if wrong := [name for name, given in faults if given]:
        remedy = "they are compared on validation data, in one process, with a recipe that is named"
        raise OptionError(f"--baselines cannot be given with {' and '.join(wrong)}: {remedy}")


def candidate_table(run: Run) -> str:
    """Return the candidates of ``--recipe auto``, those left out and the choice, at most 80 columns wide."""
    rows, name = [], run.monitor
    for row in run.candidates:
        if row["score"] is None:
            continue
        ends = {} if row["low"] is None else {f"{name}_low": row["low"], f"{name}_high": row["high"]}
        score = format_metrics({name: row["score"], **ends})[name]
        size, mark = in_units(row["memory"]), "*" if row["chosen"] else ""
        rows.append([row["name"] + mark, row["epochs"], score, in_time_units(row["seconds"]), size, format_parameters(row["trained"])])
    lines = [table(rows, ["candidate", "epochs", name, "time", "memory", "trained"], right=(1, 3, 4, 5))]
    alone = run.candidates[0]["score"]  # of the probe, whose head the others begin with
    equal = [row for row in run.candidates[1:] if row.get("tuned") is not None and row["score"] == alone]
    heads = [f"{row['name']} ({score_text(name, row['tuned'])})" for row in equal]
    if heads:
        lines.append(textwrap.fill(f"no epoch of tuning was better than the head alone: {', '.join(heads)}", 80))
    lines += [textwrap.fill(f"{row['name']}: {row['note']}", 80) for row in run.candidates if row["note"]]
    return "\n".join([*lines, textwrap.fill(f"* {run.choice}", 80)])


def read_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the checked settings of ``add_arguments`` and the config file; see ``settings.merge``."""
    from zoo.cli.arguments import settings

    flags = {key: getattr(options, key, None) for key in (*settings.PLAIN, *settings.flagged())}
    flags |= {"classes": settings.names(options.classes)}
    group = {"group": options.group} if options.group else {}
    flags |= {"columns": settings.columns(options.columns) | group, "options": settings.pairs(options.set, "--set")}
    flags |= {"head_options": settings.pairs(options.head_set, "--head-set")}
    flags |= {"model_options": settings.pairs(options.model_set, "--model-set")}
    return settings.merge(options.config, flags)


def demo(options: argparse.Namespace, out: Output) -> None:
    """Run the demonstration of the built-in backbone."""
    from zoo.builtin.demo import run_demo

    run_demo(options.out)


def _train(name: str, data: str, settings: dict[str, Any], *, started: float) -> Run:
    backbone = find_declared(name, settings)
    from zoo.engine.options.begun import began_validated

    config, several = settings["config"], launched() > 1
    with ExitStack() as stack:
        # A single process joins after the data are checked, because joining imports torch.
        ranks = stack.enter_context(_joined(config)) if several else None
        with ranks.together() if ranks else nullcontext():
            again = bool(settings["baselines"]) or (bool(settings["resume"]) and began_validated(settings["out"]))
            job = job_of(backbone, data, settings, divided=again)
        if not (settings["quiet"] or rank()):
            show_log()
        resume = bool(settings["resume"])
        if "auto" in settings:
            from zoo.select.recipe_search.auto import run_auto
            from zoo.select.recipe_search.halving import seconds_of

            more = {"seconds": seconds_of(settings["budget"]), "out": settings["out"], "resume": resume, "quiet": bool(settings["quiet"])}
            return run_auto(job.model, settings["auto"], job.open_data, **more, started=started)
        if settings["baselines"]:
            from zoo.select.negative_transfer import run_with_baselines

            return run_with_baselines(job, settings["out"], resume=resume)
        from zoo.engine.train.fit import run_job

        return run_job(job, ranks or stack.enter_context(_joined(config)), settings["out"], resume=resume)


def _joined(config: Config) -> AbstractContextManager[Ranks]:
    from zoo.engine.distributed.rendezvous import joined

    return joined(config.device, config.timeout)
