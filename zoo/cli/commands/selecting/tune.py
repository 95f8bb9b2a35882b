"""The command tune, which searches for the options of a run, alone or in several processes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.parser import Commands
from zoo.cli.commands.selecting.slurm import slurm_settings
from zoo.cli.commands.selecting.workers import workers
from zoo.cli.commands.training import RECIPES, VALID, add_run_arguments, read_settings
from zoo.cli.job import find_declared, job_of
from zoo.cli.launch import follow_launcher
from zoo.cli.output.stdout import Output, show_log, table
from zoo.cli.output.wording import as_typed
from zoo.engine.runtime.progress import in_time_units
from zoo.engine.runtime.signals import ending_early
from zoo.errors import OptionError, check_together, examples, fault_list, fault_message
from zoo.select.log_once import each_message_once
from zoo.select.tuning_search.pruners import PRUNERS
from zoo.util.extras import require_extra
from zoo.util.numbers import score_text

if TYPE_CHECKING:
    from zoo.engine.train.job import Job
    from zoo.select.tuning_search.result import Tuning

SHOWN = 10  # trials of the printed table


def register(commands: Commands) -> None:
    """Add the command of this module."""
    text = "search for the options of a run with Optuna; the best trial is kept as a run"
    command = commands.add_parser("tune", help=text)
    add_run_arguments(command)
    add = command.add_argument
    add("--valid", metavar="DATA", help=VALID)
    add("--recipe", help=f"one for all trials, which else is searched: {RECIPES}")
    add("--trials", type=int, metavar="N", help="number of trials, those before --resume included (20, unless --budget is given)")
    add("--budget", metavar="TIME", dest="time", help="time of this call with all its workers, such as 30min; no trial begins after it")
    add("--search", metavar="NAME=RANGE", action="append", default=[], help="such as lr=1e-5..1e-2,log or batch_size=8|16; may be repeated")
    add("--only", metavar="A,B", help="search these options alone")
    add("--storage", metavar="FILE", help="a journal file, an SQLite file (.db) or the URL of a database; else a journal in --out")
    add("--study", metavar="NAME", default="zoo", help="name of the study in its storage")
    add("--pruner", choices=PRUNERS, default="median", help="which trials are stopped after an epoch in which they are behind")
    add("--workers", type=int, default=1, metavar="W", dest="at_once", help="processes on this machine that run trials at once")
    text = "the workers beside this process as jobs of Slurm, by submitit: slurm_partition=gpu,gpus_per_node=1,timeout_min=240"
    add("--slurm", metavar="A=B,…", help=text)
    add("--join", action="store_true", help="run trials of a search that another process leads in --out, and leave its end to that")
    text = "search anew in each of K folds, and measure what was chosen on its held-out samples: an honest estimate, and no model"
    add("--nested", type=int, metavar="K", help=text)
    add("--json", action="store_true", help="one JSON document with the result")
    command.set_defaults(run=tune)


def tune(options: argparse.Namespace, out: Output) -> None:
    """Search; as much as possible is checked before torch is imported.

    Raises:
        OptionError: If an option contradicts a search.
    """
    require_extra("tune", "zoo tune")
    with each_message_once():  # the job is made here, and in the search again
        _tune(options, out)


def _tune(options: argparse.Namespace, out: Output) -> None:
    from zoo.select.tuning_search.arguments import check_arguments, hold_out_remedy

    slurm, settings, search, *_ = check_together(
        "this search cannot run:",
        lambda: _check_processes(options),
        lambda: _searchable_settings(options),
        lambda: _checked_search(options),
        lambda: check_arguments({}, recipe=None, valid=None, trials=options.trials, budget=options.time),
        lambda: find_declared(options.name, {"head": options.head}),
    )
    given = settings["fit"] | ({"columns": settings["columns"]} if settings["columns"] else {})
    recipe = settings["recipe"]
    if options.nested is not None:
        settings["valid"] = False
    with hold_out_remedy():
        job = job_of(find_declared(options.name, settings), options.data, settings, whole=options.nested is not None)
    if not settings["quiet"]:
        show_log()
    from zoo.select.tuning_search.tune import run_tuning

    if options.nested is not None:
        _tune_nested(options, job, given, settings, search, out)
        return
    how: dict[str, Any] = {name: getattr(options, name) for name in ("trials", "storage", "study", "pruner", "join")}
    how |= {"budget": options.time, "out": settings["out"], "resume": bool(settings["resume"]), "quiet": bool(settings["quiet"])}
    several = options.at_once > 1 and not options.join

    beside = partial(workers, options.words, options.at_once - 1, slurm=slurm) if several else None
    if options.join:
        follow_launcher()
    with ending_early():
        found = run_tuning(job.model, given, job.open_data, recipe=recipe, search=search, only=options.only, beside=beside, **how)
    if found is not None:  # else the process that leads prints the result
        _show(found, options, out)


def _show(found: Tuning, options: argparse.Namespace, out: Output) -> None:
    """Print the result of a search."""
    if options.json:
        out.json(document(found))
    else:
        print(trial_table(found), importance_text(found), as_typed(found.verdict), str(found.dir / "best"), sep="\n\n")


def _check_processes(options: argparse.Namespace) -> dict[str, Any] | None:
    """Check the options of a search that need no data, and return the parameters of Slurm's jobs, None without them.

    Raises:
        MissingExtraError: If submitit is not installed, for ``--slurm``.
        OptionError: Naming all options that contradict a search, or another one.
    """
    faults = ["--recipe auto: the recipe is searched; leave it out, or name one"] if options.recipe == "auto" else []
    if options.at_once < 1:
        faults.append(f"--workers is {options.at_once}; it must be 1 or more")
    if options.join and not options.out:
        faults.append("--join needs --out, the folder of the search")
    if options.slurm is not None and options.at_once == 1:
        faults.append("--slurm needs --workers, 2 or more: the number of processes, this one included")
    if options.slurm is not None and options.join:
        faults.append("--slurm and --join: jobs are submitted by the process that leads a search; leave one of them out")
    if faults:
        raise OptionError(fault_message("a search cannot run with these:", faults))
    return None if options.slurm is None else slurm_settings(options.slurm)


def _checked_search(options: argparse.Namespace) -> dict[str, str]:
    """Return the ranges by name, checked as far as that needs no model."""
    from zoo.select.tuning_search.space import check_search

    search = searched(options.search)
    check_search(search, options.only)
    return search


def _searchable_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the trials.

    Raises:
        OptionError: Naming all that contradict a search.
    """
    from zoo.select.tuning_search.arguments import check_arguments

    settings = read_settings(options)
    valid = None if options.nested is not None else settings["valid"]
    check_together(
        "a search cannot run with these:",
        lambda: check_arguments(settings["fit"], recipe=settings["recipe"], valid=valid, trials=options.trials, budget=options.time),
        lambda: None if options.nested is None else _check_nested(options, settings),
    )
    return settings


def _check_nested(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Check that nothing contradicts folds, each with a search of its own.

    Raises:
        OptionError: Naming all that does.
    """
    faults = [f"--nested is {options.nested}; it must be 2 or more"] if options.nested < 2 else []
    faults += ["--valid: each fold holds out samples of its own"] if settings["valid"] is not None else []
    several = {"--workers": options.at_once > 1, "--slurm": options.slurm, "--join": options.join, "--storage": options.storage}
    faults += [f"{name}: the searches of the folds run one after the other, in this process" for name, given in several.items() if given]
    if faults:
        raise OptionError(fault_list("--nested contradicts other options:", faults))


def _tune_nested(
    options: argparse.Namespace, job: Job, given: dict[str, Any], settings: dict[str, Any], search: dict[str, str], out: Output
) -> None:
    from zoo.cli.commands.selecting.crossval import document as of_folds
    from zoo.cli.commands.selecting.crossval import tables
    from zoo.select.tuning_search.nested import run_nested

    how = {"recipe": settings["recipe"], "trials": options.trials, "budget": options.time, "search": search}
    how |= {"only": options.only, "pruner": options.pruner}
    where: dict[str, Any] = {"out": settings["out"], "resume": bool(settings["resume"]), "quiet": bool(settings["quiet"])}
    with ending_early():
        found = run_nested(job.model, given, lambda: job.open_data()[0], how, folds=options.nested, **where)
    if options.json:
        out.json(of_folds(found) | {"chosen": list(found.chosen)})
        return
    chosen = table(enumerate(found.chosen), ("fold", "chosen"), right=(0,))
    print(*tables(found), chosen, "an estimate of what the search reaches; the model is that of zoo tune without --nested", sep="\n\n")
    print(found.dir)


def searched(words: Sequence[str]) -> dict[str, str]:
    """Parse ``lr=1e-5..1e-2,log``; the ranges are read by the search.

    Raises:
        OptionError: Naming all that have no ``=``.
    """
    parted = [word.partition("=") for word in words]
    if odd := [repr("".join(one)) for one in parted if not all(part.strip() for part in one)]:
        raise OptionError(f"--search {', '.join(odd)} is not of the form NAME=RANGE, such as 'lr=1e-5..1e-2,log' or 'batch_size=8|16'")
    return {name.strip(): value for name, _, value in parted}


def document(found: Tuning) -> dict[str, Any]:
    """Return a result for JSON."""
    trials = [vars(trial) for trial in found.trials]
    best = str(found.dir / "best")
    return {
        "dir": str(found.dir),
        "best": {**vars(found.best_trial), "dir": best},
        "monitor": found.monitor,
        "verdict": found.verdict,
        "importance": found.importance,
        "trials": trials,
    }


def trial_table(found: Tuning) -> str:
    """Return the best trials with their options, the default recipe among them."""
    known = [(trial.value, trial) for trial in found.trials if trial.value is not None and trial.state == "complete"]
    known.sort(key=lambda pair: pair[0], reverse=not found.lower)
    shown = known[:SHOWN] + [pair for pair in known[SHOWN:] if pair[1].default]
    rows = []
    for value, trial in shown:
        options = "the default" if trial.default else " ".join(trial.listed)
        name = f"{trial.number}{'*' if trial.number == found.best_trial.number else ''}"
        rows.append([name, score_text(found.monitor, value), in_time_units(trial.seconds), trial.recipe, options])
    text = table(rows, ("trial", found.monitor, "time", "recipe", "options"), right=(1, 2))
    pruned = sum(trial.state == "pruned" for trial in found.trials)
    failed = [f"trial {trial.number}: {trial.note}" for trial in found.trials if trial.state == "failed"]
    more = [f"{pruned} pruned"] if pruned else []
    more += [f"{len(failed)} failed ({examples(failed)})"] if failed else []
    return "\n".join([text, *([f"and {', '.join(more)}"] if more else []), "* the best trial"])


def importance_text(found: Tuning) -> str:
    """Return the importance of the options in one line."""
    if not found.importance:
        return "the importance of the options is not known: there are too few trials, or they are alike"
    return "importance: " + ", ".join(f"{name} {share:.2f}" for name, share in found.importance.items())
