"""The table of layer groups of the installed timm of the plugin's page, which scripts/make_plugin_pages.py writes."""

from __future__ import annotations

from collections.abc import Iterable

import conformance
import timm
import torch
from zoo_timm.groups import layers

import zoo


def shortened(names: Iterable[str]) -> str:
    """Write ``block.0, block.1, … block.11`` as ``block.0 … block.11``."""
    parts: list[list[str]] = []
    for name in names:
        if parts and name.rpartition(".")[0] and name.rpartition(".")[0] == parts[-1][0].rpartition(".")[0]:
            parts[-1].append(name)
        else:
            parts.append([name])
    return ", ".join(f"{part[0]} … {part[-1]}" if len(part) > 2 else ", ".join(part) for part in parts)


def rows() -> list[str]:
    """Return a table row per module of timm."""
    lines = ["| module | for example | features | groups | names |", "|---|---|---|---|---|"]
    for module, spec in sorted(conformance.representatives().items()):
        name = spec.name.removeprefix("timm/")
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0)
        names = zoo.bind(model, layers(model)).names
        features = f"{spec.features.layout} {spec.features.pool}".removesuffix(" none")
        lines.append(f"| {module} | {name} | {features} | {len(names)} | {shortened(names)} |")
    return lines
