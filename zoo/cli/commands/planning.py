"""The command ``plan``: a preview of ``zoo train`` with the same arguments, with its memory and time."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.parser import Commands
from zoo.cli.commands.training import add_arguments, read_settings
from zoo.cli.job import find_declared, job_of
from zoo.cli.output.stdout import Output, format_parameters, table
from zoo.engine.runtime.progress import in_time_units
from zoo.util.numbers import in_units

if TYPE_CHECKING:
    from zoo.engine.preview.report import GroupPlan, PhasePlan, Preview
    from zoo.engine.train.job import Job
    from zoo.select.recipe_search.plan import CandidatePlan


def register(commands: Commands) -> None:
    """Add the command of this module."""
    text = "show what zoo train would do: what trains in each phase, at what rates, and the memory and time it would take"
    more = "Takes the arguments of zoo train; --out, --resume, --quiet and --num-processes make no difference. Nothing is written."
    command = commands.add_parser("plan", help=text, description=f"{text}. {more}")
    add_arguments(command)
    command.add_argument("--json", action="store_true", help="one JSON document")
    command.set_defaults(run=plan)


def plan(options: argparse.Namespace, out: Output) -> None:
    """Print the preview of a run."""
    settings = read_settings(options)
    job = job_of(find_declared(options.name, settings), options.data, settings, divided=bool(settings["baselines"]))
    if "auto" in settings:
        _plan_search(job, settings, out, as_json=options.json)
        return
    from zoo.data.open import UNMEASURED
    from zoo.engine.preview.preview import preview_job

    preview = preview_job(job)
    if options.json:
        out.json(preview.to_dict())
        return
    valid = f", {preview.valid} for validation" if preview.valid else ""
    print(f"{preview.backbone}, {preview.recipe}: {preview.samples} training samples{valid}, batch size {preview.batch_size}\n")
    header = ("group", "parameters", "phase", "trainable", "lr", "weight decay", "mode")
    print(table(_group_rows(preview), header, right=(1, 3, 4, 5)))
    columns = ("phase", "epochs", "steps", "frozen", "schedule", "peak lr", "micro-batch", "memory", "time")
    print("\n" + table(map(_phase_row, preview.phases), columns, right=(1, 2, 3, 5, 6, 7, 8)))
    print("\n".join(["", *_frozen_lines(preview)]))
    if preview.wise_ft < 1:
        why = "" if "wise_ft" in settings else f", as {preview.samples} samples are few; --set wise_ft=1 takes the tuned ones"
        print(f"\nthe result: {preview.wise_ft:g} of the tuned values, {1 - preview.wise_ft:g} of those before the last phase{why}\n")
    if preview.refit_bias:
        print("at the end the biases of the head are fitted anew on the images as they are; --set refit_bias=false leaves them as tuned\n")
    if not preview.valid and settings["valid"] is None:
        print(f"none of the {preview.samples} samples are held out, {UNMEASURED}\n")
    seconds = in_time_units(preview.seconds)
    print(f"estimated: {in_units(preview.memory)} of memory at the peak on {preview.device} ({preview.precision}), {seconds}")


def _plan_search(job: Job, settings: Mapping[str, Any], out: Output, *, as_json: bool) -> None:
    """Print what --recipe auto would try and take."""
    from zoo.select.recipe_search.halving import DEFAULT_RUNS, seconds_of
    from zoo.select.recipe_search.plan import plan_search

    found = plan_search(job.model, settings["auto"], job.open_data, seconds=seconds_of(settings["budget"]))
    if as_json:
        out.json(found.to_dict())
        return
    print(f"{found.backbone}, auto: {found.samples} training samples, {found.valid or 'none'} for validation\n")
    print(table(map(_candidate_row, found.candidates), ("candidate", "trained", "epochs", "time", "memory"), right=(1, 2, 3, 4)))
    for name, why in found.left_out.items():
        print(f"{name}: left out: {why}")
    usual = f"those of the probe and of {DEFAULT_RUNS} runs of the default recipe, a minute at least; --budget gives another"
    print(
        "\nthe probe is fitted first; then the others run for the first number of epochs, the better half of them for the next, and so on"
    )
    print(f"budget: {in_time_units(found.budget)}{'' if found.given else f', {usual}'}")
    print(
        f"estimated: {in_time_units(found.seconds)} for all rounds at the most, and {in_time_units(found.measured)} for dry runs; "
        "what the budget does not suffice for is left out"
    )


def _candidate_row(one: CandidatePlan) -> tuple[object, ...]:
    epochs, seconds = ", ".join(map(str, one.epochs)), ", ".join(map(in_time_units, one.seconds))
    return one.name, format_parameters(one.trained), epochs, seconds, in_units(one.memory)


def _group_rows(preview: Preview) -> Iterator[tuple[object, ...]]:
    """Yield a row per group and consecutive phases with the same settings."""
    for position, first in enumerate(preview.phases[0].groups):
        stretches: list[tuple[str, str, GroupPlan]] = []
        for phase in preview.phases:
            group = phase.groups[position]
            if stretches and _cells(stretches[-1][2]) == _cells(group):
                stretches[-1] = (stretches[-1][0], phase.name, group)
            else:
                stretches.append((phase.name, phase.name, group))
        for line, (start, end, group) in enumerate(stretches):
            named = (first.name, format_parameters(first.parameters) or "0") if line == 0 else ("", "")
            yield (*named, start if start == end else f"{start} to {end}", *_cells(group))


def _cells(group: GroupPlan) -> tuple[object, ...]:
    if not group.trainable:
        return "0", "", "", group.mode
    rate = f"auto x {group.factor:.3g}" if isinstance(group.lr, str) else f"{group.lr:.2g}"
    return format_parameters(group.trainable), rate, f"{group.weight_decay:g}", group.mode


def _phase_row(phase: PhasePlan) -> tuple[object, ...]:
    rate = phase.lr if isinstance(phase.lr, str) else f"{phase.lr:.2g}" if phase.lr else "-"
    frozen = f"{phase.frozen} of {len(phase.groups) - 1}"
    memory, time = in_units(phase.memory), in_time_units(phase.seconds)
    return phase.name, phase.epochs, phase.steps, frozen, phase.schedule, rate, phase.micro_batch or "-", memory, time


def _frozen_lines(preview: Preview) -> Iterator[str]:
    for phase in preview.phases:
        if phase.cached:
            place = "in memory" if phase.cache_place == "memory" else "in a file of the run's folder"
            yield f"{phase.name}: frozen groups run once per sample; the cached {phase.cached} take {in_units(phase.cache)} {place}"
        elif phase.reason:
            yield f"{phase.name}: frozen groups run every epoch: {phase.reason}"
