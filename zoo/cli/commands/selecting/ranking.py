"""The command rank, which orders backbones by how well they suit labelled data."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.parser import Commands, Parser, pixels
from zoo.cli.commands.listing import number
from zoo.cli.commands.training import DATA, add_arguments, add_option_flags, train
from zoo.cli.output.stdout import Output, format_parameters, show_log, table
from zoo.cli.output.terminal import fitted_table
from zoo.cli.start_up import uncollected
from zoo.engine.runtime.progress import in_time_units
from zoo.errors import LISTED, OptionError, count, examples
from zoo.util.numbers import in_units, interval_text, score_text

if TYPE_CHECKING:
    from zoo.models.backbone import Backbone
    from zoo.select.ranking.ranking import Ranking
    from zoo.select.ranking.row import Row

WIDTH = 80
SHORT = {"regularized_h_score": "H-score (reg.)", "h_score": "H-score", "logme": "LogME", "knn": "kNN", "transrate": "TransRate"}
SHORT |= {"leep": "LEEP", "nce": "NCE"}


def register(commands: Commands) -> None:
    """Add the command of this module."""
    text = "order backbones by how well they suit your data: a cross-validated probe on features that are computed once"
    command = commands.add_parser("rank", help=text, description=f"{text}; see docs/rank.md.")
    add = command.add_argument
    add("data", metavar="DATA", help=DATA)
    add("--valid", metavar="DATA", help="data that judge fine-tuning; else a split of DATA, else 20 %% held out")
    add("--candidates", metavar="NAME", nargs="+", action="extend", help="names, globs such as 'timm/resnet*'; else a prior list")
    add("--task", default="single-label", help="single-label, multi-label or regression")
    add("--max-params", type=number, metavar="N", help="most parameters, such as 30M or 30e6")
    add("--max-latency-ms", type=float, metavar="MS", help="most milliseconds of one sample on this machine")
    add("--max-memory", metavar="SIZE", help="most memory of the weights and one sample, such as 500MB")
    add("--license", help="SPDX identifier of the weights, or 'permissive'")
    add("--budget", metavar="TIME", help="time of all, such as 10min: fewer samples first, short fine-tunes of the best last")
    add("--top", type=int, default=3, metavar="N", help="how many may be fine-tuned (3)")
    add("--offline", action="store_true", help="only candidates whose weights are on this machine")
    add("--set", metavar="KEY=VALUE", action="append", help="an option of opening or reading, such as batch_size=32; may be repeated")
    for flag, kind, text in _READING:
        add(flag, type=kind, metavar="N" if kind is int else "NAME", help=text)
    add("--columns", metavar="ROLE=NAME,…", help="names of a table's columns, such as file_name=file,group=patient_id")
    add("--out", metavar="DIR", help="folder of the result; else the next free one below runs/")
    add("--resume", action="store_true", help="go on in --out; what is scored there is not scored again")
    add("--quiet", action="store_true", help="no progress")
    add("--then", choices=("train",), help="train: fine-tune the best one on DATA, with the defaults of zoo train, into DIR/train")
    add("--json", action="store_true", help="one JSON document with the result")
    command.set_defaults(run=rank, surplus="; backbones are named by --candidates NAME NAME")


_READING = (
    ("--image-size", pixels, "pixels, one number or height and width, where they differ from the backbones' own"),
    ("--max-length", int, "tokens of a text, where they differ from the backbones' own"),
    ("--device", str, "auto, cpu, cuda or mps"),
    ("--seed", int, "seed of the folds"),
)


def rank(options: argparse.Namespace, out: Output) -> None:
    """Print the order of the candidates, how sure it is, and how the scores agree."""
    from zoo.cli.arguments import settings

    given = {flag[2:].replace("-", "_"): getattr(options, flag[2:].replace("-", "_")) for flag, _, _ in _READING}
    given = {name: value for name, value in given.items() if value is not None} | settings.pairs(options.set, "--set")
    if options.columns:
        given["columns"] = settings.columns(options.columns)
    names = ("valid", "task", "max_params", "max_latency_ms", "max_memory", "license", "budget", "top", "offline", "out", "resume", "quiet")
    given |= {"candidates": _checked(options, given)} | {name: getattr(options, name) for name in names}
    if not options.quiet:
        show_log()
    with uncollected():
        from zoo.select.ranking.rank import rank as run

    found = run(options.data, **given)
    document = found.to_dict()
    if not options.json:
        print("\n\n".join(report(found)))
    if options.then:
        _train(options, found, out)
    elif options.json:
        out.json(document)


def _checked(options: argparse.Namespace, given: Collection[str]) -> list[Backbone] | None:
    """Check what needs no torch, before it is imported, and return the named candidates.

    Args:
        options: The command line.
        given: Names of the given options of a run.

    Raises:
        ZooError: The only mistake, or an ``OptionError`` with all of them.
    """
    from zoo.data.sources.folders import check_exists
    from zoo.select.ranking.candidates import checked_candidates

    if options.json and options.then:
        raise OptionError("--json prints one document, and --then train has one of its own; run zoo train --json afterwards")
    limits = {name: getattr(options, name) for name in ("max_params", "max_latency_ms", "max_memory", "license")}
    how = {"limits": limits, "budget": options.budget, "top": options.top}
    return checked_candidates(options.candidates, options.task, given, **how, more=[lambda: check_exists(Path(options.data))])


def report(found: Ranking) -> Iterator[str]:
    """Yield the paragraphs of a ranking, at most 80 columns wide."""
    more = [name for name in ("knn", "logme") if any(name in row.scores for row in found.rows)]
    tuned = any(row.tuned for row in found.rows)
    header = ["backbone", found.metric, *(["tuned"] if tuned else []), *(SHORT[name] for name in more), "ms", "memory", "params"]
    rows = [list(_cells(row, found, more, tuned=tuned)) for row in found.rows]
    yield fitted_table(rows, header, width=WIDTH, right=range(2, len(header)))[0]
    marks = {"=": "not told apart from the best", "-": "dominated: one no slower and no larger is better by more than noise"}
    used = [f"{mark} {text}" for mark, text in marks.items() if any(row[0].endswith(f" {mark}") for row in rows)]
    few = [row for row in found.rows if row.samples < found.best.samples]
    used += [f"{row.name} was dropped after {row.samples} of {found.best.samples} samples" for row in few]
    yield "\n".join(textwrap.fill(line, WIDTH) for line in [*used, found.reason])
    if found.agreement:
        yield _agreement_table(found)
    if found.left_out:
        from zoo.select.ranking.ranking import same_reasons  # imports numpy

        reasons = (f"{examples(names, LISTED)}: {found.left_out[names[0]]}" for names in same_reasons(found.left_out))
        lines = (textwrap.fill(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False) for text in reasons)
        yield "\n".join(["left out:", *lines])
    yield f"{in_time_units(found.seconds)}, {found.dir}"


def _cells(row: Row, found: Ranking, more: list[str], *, tuned: bool) -> Iterator[str]:
    mark = " =" if row.name in found.ties else " -" if row.name in found.dominated else ""
    probe = row.probe
    yield row.name + mark
    yield interval_text(found.metric, probe.score, probe.low, probe.high)
    if tuned:
        yield score_text(found.metric, row.tuned.score, 3) if row.tuned else ""
    for name in more:
        value = row.scores.get(name, float("nan"))
        yield f"{-value if name == 'knn' and found.lower else value:.3f}"
    yield f"{row.latency_ms:.1f}"
    yield in_units(row.memory)
    yield format_parameters(row.parameters)


def _agreement_table(found: Ranking) -> str:
    """Return how the order of each score agrees with that of tuning, or of the probe."""
    from zoo.select.ranking.agreement import LEAST_ALIKE, LIKE_SIZE  # imports numpy

    tuned = sum(row.tuned is not None for row in found.rows) >= 3
    rows = []
    for one in found.agreement:
        interval = "" if one["low"] is None else f" [{one['low']:.2f}, {one['high']:.2f}]"
        tau = "-" if one["tau"] is None else f"{one['tau']:.2f}{interval}"
        pairs = one["pairs_like_size"]
        alike = "-" if one["tau_like_size"] is None else f"{one['tau_like_size']:.2f} ({count(pairs, 'pair')})"
        rows.append([SHORT.get(one["score"], one["score"]), tau, alike])
    text = table(rows, ("order by", f"tau with {'tuning' if tuned else 'the probe'}", "tau, like size"))
    most = max(one["pairs_like_size"] for one in found.agreement)
    if most >= LEAST_ALIKE:
        return text
    few = f"{count(most, 'pair')} of candidates" if most else "no two candidates"
    said = f"{few} of like size (within a factor of {LIKE_SIZE:.0f}): too few to say what a score tells beyond the size"
    return f"{text}\n{textwrap.fill(said, WIDTH)}"


def _train(options: argparse.Namespace, found: Ranking, out: Output) -> None:
    """Fine-tune the best candidate as ``zoo train`` does with the same data."""
    parser = Parser(prog="zoo train")
    add_arguments(parser)
    add_option_flags(parser)
    words: list[Any] = [found.best.folder or found.best.name, options.data, "--task", options.task, "--out", found.dir / "train"]
    for name in ("valid", "image_size", "seed", "columns"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name.replace('_', '-')}", ",".join(map(str, value)) if isinstance(value, tuple) else value]
    unflagged = [f"{name}={getattr(options, name)}" for name in ("max_length", "device") if getattr(options, name) is not None]
    for pair in (*unflagged, *(options.set or ())):
        words += ["--set", pair]
    words += [flag for flag in ("--quiet", "--resume") if getattr(options, flag[2:]) and (flag == "--quiet" or _begun(found))]
    chosen = parser.parse_args([str(word) for word in words])
    chosen.words, chosen.started, chosen.debug, chosen.json = options.words, options.started, options.debug, False
    print()
    train(chosen, out)


def _begun(found: Ranking) -> bool:
    return (found.dir / "train" / "run.json").is_file()
