"""The commands list, show and layers. Only ``layers`` builds a model."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.parser import Commands
from zoo.cli.output.backbone_facts import described_features, described_inputs
from zoo.cli.output.stdout import Output, format_parameters, table
from zoo.cli.output.terminal import fitted_table, page, terminal_width
from zoo.declare import Image, Text
from zoo.errors import OptionError, UnknownBackboneError, count, did_you_mean, examples, printable
from zoo.registry.search import SEARCHED, is_glob, name_matcher

if TYPE_CHECKING:
    from zoo.declare import Inputs
    from zoo.models.backbone import Backbone
    from zoo.models.layers import LayerGroups
    from zoo.registry.registry import Entry, Registry

JSON = {"action": "store_true", "help": "print one JSON document"}
NAME = "a name from zoo list, an alias, or the folder of a saved model"
SORTED_BY = {"accuracy": "top-1", "gmacs": "GMACs"}  # the column that an order is read from
FILTERS = ("modality", "max_params", "max_gmacs", "license", "image_size", "source", "pretrained", "sort")


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    command = commands.add_parser("list", help="list backbones; imports no model library")
    text = f"words that its {SEARCHED} has; or a glob over names, such as 'timm/*conv*'"
    command.add_argument("patterns", nargs="*", metavar="PATTERN", help=text)
    command.add_argument("--modality", help="image, text or volume")
    command.add_argument("--max-params", type=number, metavar="N", help="most parameters, such as 30M or 30e6")
    command.add_argument("--max-gmacs", type=float, metavar="G", help="most 10^9 multiply-accumulates of one forward")
    command.add_argument("--sort", default="name", help="name, params, gmacs, accuracy (on ImageNet) or size (of the image)")
    command.add_argument("--license", help="SPDX identifier of the weights, or 'permissive'")
    command.add_argument("--image-size", type=int, metavar="S", help="height of the input in pixels")
    command.add_argument("--source", help="first part of the id, such as timm")
    command.add_argument("--pretrained", action=argparse.BooleanOptionalAction, help="with weights only, or without only")
    command.add_argument("--aliases", action="store_true", help="list the short names and the ids that they mean")
    command.add_argument("--json", **JSON)
    command.set_defaults(run=list_backbones)
    command = commands.add_parser("show", help="show the declaration of one backbone")
    command.add_argument("name", metavar="NAME", help=NAME)
    command.add_argument("--json", **JSON)
    command.set_defaults(run=show)
    command = commands.add_parser("layers", help="show the layer groups of a backbone; builds it, without its weights")
    command.add_argument("name", metavar="NAME", help=NAME)
    command.add_argument("--freeze", metavar="K", help="show a frozen prefix: a number of groups, or a group's name (inclusive)")
    command.set_defaults(run=layers)


def number(text: str) -> float:
    """Read a number such as ``30e6``, ``30M``, ``500k`` or ``1.5B``."""
    factors = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
    factor = factors.get(text[-1:].lower())
    try:
        return float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write 30e6, 30M or 500k") from None


def list_backbones(options: argparse.Namespace, out: Output) -> None:
    """Print the backbones that match a pattern and pass the filters.

    Raises:
        OptionError: If several globs are given.
    """
    from zoo.registry.registry import default_registry

    registry = default_registry()
    if len(options.patterns) > 1 and (globs := [one for one in options.patterns if is_glob(one)]):
        raise OptionError(f"{examples(globs)} beside other patterns: zoo list takes one glob, or words that are all looked for")
    options.pattern = " ".join(options.patterns) or "*"
    if options.aliases:
        list_aliases(registry, options, out)
        return
    try:
        entries = registry.search(options.pattern, **{key: getattr(options, key) for key in FILTERS})
    except UnknownBackboneError as error:  # finding nothing is an answer
        entries = []
        print(error, file=sys.stderr)
    else:
        if not entries:
            print(_nothing_passes(registry, options), file=sys.stderr)
    if options.json:
        out.json([_row(entry) for entry in entries])
        return
    _print_table(entries, options.sort)
    print(count(len(entries), "backbone"))
    if registry.pending:
        print("looked up when used, because no plugin lists their base: " + ", ".join(sorted(registry.pending)))
    if registry.faults:
        print(f"warning: the plugins have {count(len(registry.faults), 'fault')}; see: zoo plugins", file=sys.stderr)


def _nothing_passes(registry: Registry, options: argparse.Namespace) -> str:
    """Return how many backbones a pattern matches, where the filters leave none of them."""
    number = len(registry.search(options.pattern))
    if not number:
        return "no plugin lists a backbone; see: zoo plugins"
    flags = [_flag(name, getattr(options, name)) for name in FILTERS if name != "sort" and getattr(options, name) is not None]
    what = "" if options.pattern == "*" else f" that {'matches' if number == 1 else 'match'} {options.pattern!r}"
    leave = "leaves" if len(flags) == 1 else "leave"
    return f"{' '.join(flags)} {leave} nothing of {count(number, 'backbone')}{what}; give another filter, or see them all: zoo list"


def _flag(name: str, value: object) -> str:
    word = f"--{'no-' * (value is False)}{name.replace('_', '-')}"
    return word if isinstance(value, bool) else f"{word} {f'{value:g}' if isinstance(value, float) else value}"


def list_aliases(registry: Registry, options: argparse.Namespace, out: Output) -> None:
    """Print the aliases that match a pattern by their own name or by their id; a filter keeps those of the backbones that pass it."""
    matches = name_matcher(options.pattern)
    found = {alias: name for alias, name in sorted(registry.aliases.items()) if matches(alias) or matches(name)}
    filters = {key: getattr(options, key) for key in FILTERS if key != "sort" and getattr(options, key) is not None}
    if filters:
        passing = {entry.spec.name for entry in registry.search(**filters)}
        found = {alias: name for alias, name in found.items() if name in passing}
    if not found and options.pattern != "*":
        near = did_you_mean(options.pattern, registry.aliases)
        print(f"no alias, nor the id that it means, has {options.pattern!r}{near}; zoo list --aliases shows all", file=sys.stderr)
    if options.json:
        out.json([{"alias": alias, "name": name} for alias, name in found.items()])
        return
    if found:
        print(fitted_table(list(found.items()), ("alias", "name"), width=terminal_width())[0], end="\n\n")
    print(count(len(found), "alias"))


def _print_table(entries: Sequence[Entry], sort: str) -> None:
    if not entries:
        return
    header, width = ("name", "params", "GMACs", "input", "top-1", "licence", "plugin"), terminal_width()
    optional = [name for name in ("plugin", "GMACs", "top-1") if name != SORTED_BY.get(sort)]
    text, left_out = fitted_table(list(map(_cells, entries)), header, width=width, right=(1, 2, 4), optional=optional)
    print(text, end="\n\n")
    if left_out:
        print(f"left out to fit {width} columns: {', '.join(left_out)} (COLUMNS=160 shows them)")


def show(options: argparse.Namespace, out: Output) -> None:
    """Print the declaration of one backbone, or what a saved fusion is made of."""
    import zoo

    if Path(options.name).is_dir():
        from zoo.cli.commands.fusing import is_fused, show_fused

        if is_fused(options.name):
            show_fused(options, out)
            return
    update = _update_of(Path(options.name))
    if update:
        from zoo.saved.load import open_backbone

    backbone = open_backbone(Path(options.name), updated=True) if update else zoo.get(options.name)
    declared = backbone.spec.to_dict() | {"plugin": backbone.plugin} | ({"update": update} if update else {})
    if options.json:
        out.json(declared)
        return
    print(printable(_page(backbone, update)))


def _update_of(folder: Path) -> str:
    """Return the kind of adapters or learned tokens that a saved model has beside its backbone; empty for others and for names."""
    from zoo.registry.lookup import foreign_folder

    if not (folder / "config.json").is_file() or foreign_folder(str(folder)) is not None:
        return ""
    from zoo.saved.config import read_config

    found = read_config(folder).zoo.update
    return found.kind if found else ""


def _page(backbone: Backbone, update: str) -> str:
    """Return the declaration as a page of words."""
    from zoo.registry.registry import default_registry

    spec, weights, width = backbone.spec, backbone.spec.weights, terminal_width()
    groups = f"by {spec.layers}" if isinstance(spec.layers, str) else ", ".join(spec.layers)
    rows = {
        "aliases": ", ".join(alias for alias, name in default_registry().aliases.items() if name == spec.name),
        "plugin": backbone.plugin,
        "base": spec.base,
        "input": described_inputs(spec.inputs),
        "features": described_features(spec),
        "texts": "its other tower reads them: tower='text'; see docs/multimodal.md" if spec.pair else "",
        "parameters": format_parameters(spec.parameters),
        "GMACs": f"{spec.macs:.2f}" if spec.macs else "",
        "measured": "" if backbone.is_saved else ", ".join(f"{name} {value:g} %" for name, value in spec.metrics.items()),
        "weights": weights.place if weights else "none: it starts from random values",
        "licence": weights.license if weights else "",
        "origins": "\n".join(f"{number}. {step}" for number, step in enumerate(backbone.origins, 1)) if backbone.is_saved else "",
        "beside it": f"{update}, which stays with this task: zoo.load opens both" if update else "",
        "layer groups": f"{groups}; in full: zoo layers NAME",
        "built by": " ".join([spec.build, "with", ", ".join(map(_option, spec.options.items()))] if spec.options else [spec.build]),
    }
    described = textwrap.wrap(spec.description, width)
    return "\n".join([spec.name, *described, "", page(rows, width=width)])


def _option(option: tuple[str, Any]) -> str:
    key, value = option
    return f"{key} of {count(len(value), 'entry')}" if isinstance(value, Mapping) else f"{key}={value!r}"


def layers(options: argparse.Namespace, out: Output) -> None:
    """Print the layer groups of a backbone, and the trainable parameters behind a frozen prefix."""
    import zoo

    groups = zoo.get(options.name, weights=False).groups
    freeze = options.freeze or "0"
    frozen = groups.prefix_length(int(freeze) if freeze.isdecimal() else freeze)
    sizes = _sizes(groups)
    rows = [
        (index, group.name, format_parameters(size), "frozen" if index < frozen else "trains", ", ".join(group.members))
        for index, (group, size) in enumerate(zip(groups, sizes, strict=True))
    ]
    print(table(rows, ("", "group", "parameters", "", "members"), right=(0, 2)))
    print(
        f"\n{count(len(groups), 'group')}, {format_parameters(sum(sizes))} parameters, "
        f"{format_parameters(sum(sizes[frozen:])) or '0'} of them train"
    )


def _sizes(groups: LayerGroups) -> list[int]:
    """Return the number of parameters of each group; one that several groups share counts in the first."""
    seen: set[int] = set()
    sizes = []
    for group in groups:
        own = {id(parameter): parameter.numel() for parameter in group.parameters() if id(parameter) not in seen}
        seen |= own.keys()
        sizes.append(sum(own.values()))
    return sizes


def _row(entry: Entry) -> dict[str, Any]:
    spec, plugin = entry.spec, entry.plugin
    return {
        "name": spec.name,
        "source": spec.source,
        "modality": spec.modality,
        "parameters": spec.parameters,
        "macs": spec.macs,
        "input": spec.inputs.max_length if isinstance(spec.inputs, Text) else spec.inputs.shape,
        "license": spec.license,
        "pretrained": spec.weights is not None,
        "metrics": dict(spec.metrics),
        "description": spec.description,
        "base": spec.base,
        "distribution": plugin.distribution if plugin else "",
        "version": plugin.version if plugin else "",
    }


def _cells(entry: Entry) -> tuple[object, ...]:
    spec = entry.spec
    top1 = spec.metrics.get("imagenet-top1")
    return (
        spec.name,
        format_parameters(spec.parameters),
        f"{spec.macs:.2f}" if spec.macs else "",
        _input(spec.inputs),
        f"{top1:.1f}" if top1 else "",
        spec.license if spec.weights else "no weights",
        entry.plugin.distribution or entry.plugin.name if entry.plugin else "",
    )


def _input(inputs: Inputs) -> str:
    if isinstance(inputs, Text):
        return f"{inputs.max_length} tokens"
    size = inputs.size if isinstance(inputs.size, tuple) else (inputs.size, inputs.size)
    shape = str(size[0]) if isinstance(inputs, Image) and inputs.height == inputs.width else "x".join(map(str, size))
    return shape if inputs.channels == 3 else f"{shape}, {inputs.channels} ch"
