"""The commands list, show and layers. Only ``layers`` builds a model."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from zoo.cli.output import Output, table, thousands
from zoo.cli.parser import Commands
from zoo.declare import Image, Text
from zoo.errors import count

if TYPE_CHECKING:
    from zoo.declare import Inputs
    from zoo.registry.registry import Entry

JSON = {"action": "store_true", "help": "print one JSON document"}
NAME = "a name from zoo list, an alias, or the folder of a saved model"
FILTERS = ("modality", "max_params", "license", "image_size", "source", "pretrained")


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    command = commands.add_parser("list", help="list backbones; imports no model library")
    command.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="glob over the whole id or the part after the source")
    command.add_argument("--modality", help="image, text or volume")
    command.add_argument("--max-params", type=number, metavar="N", help="most parameters, such as 30M or 30e6")
    command.add_argument("--license", help="SPDX identifier of the weights, or 'permissive'")
    command.add_argument("--image-size", type=int, metavar="S", help="height of the input in pixels")
    command.add_argument("--source", help="first part of the id, such as timm")
    command.add_argument("--pretrained", action=argparse.BooleanOptionalAction, help="with weights only, or without only")
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
    """Print the backbones that match a glob and pass the filters."""
    from zoo.registry.registry import default_registry

    registry = default_registry()
    entries = registry.search(options.pattern, **{key: getattr(options, key) for key in FILTERS})
    if options.json:
        out.json([_row(entry) for entry in entries])
        return
    header = ("name", "parameters", "GMACs", "input", "top-1", "licence", "plugin")
    print(table((_cells(entry) for entry in entries), header, right=(1, 2, 4)))
    print(f"\n{count(len(entries), 'backbone')}")
    if registry.pending:
        print("looked up when used, because no plugin lists their base: " + ", ".join(sorted(registry.pending)))
    if registry.faults:
        print(f"warning: the plugins have {count(len(registry.faults), 'fault')}; see: zoo plugins", file=sys.stderr)


def show(options: argparse.Namespace, out: Output) -> None:
    """Print the declaration of one backbone."""
    import zoo

    backbone = zoo.get(options.name)
    declared = backbone.spec.to_dict() | {"plugin": backbone.plugin}
    if options.json:
        out.json(declared)
        return
    rows = [(key, value if isinstance(value, str) else json.dumps(value, default=str)) for key, value in declared.items()]
    print("\n".join(f"{key:<12}{value}" for key, value in rows if value not in ("", "{}", "null", "0", "0.0")))


def layers(options: argparse.Namespace, out: Output) -> None:
    """Print the layer groups of a backbone, and the trainable parameters behind a frozen prefix."""
    import zoo

    groups = zoo.get(options.name, weights=False).groups
    freeze = options.freeze or "0"
    frozen = groups.prefix_length(int(freeze) if freeze.isdecimal() else freeze)
    sizes = [sum(parameter.numel() for parameter in group.parameters()) for group in groups]
    rows = [
        (index, group.name, thousands(size), "frozen" if index < frozen else "trains", ", ".join(group.members))
        for index, (group, size) in enumerate(zip(groups, sizes, strict=True))
    ]
    print(table(rows, ("", "group", "parameters", "", "members"), right=(0, 2)))
    print(f"\n{count(len(groups), 'group')}, {thousands(sum(sizes))} parameters, {thousands(sum(sizes[frozen:])) or '0'} of them train")


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
        thousands(spec.parameters),
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
