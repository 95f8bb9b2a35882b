"""The table of architectures of the plugin's page, which scripts/make_plugin_pages.py writes."""

from __future__ import annotations

import zoo_torchvision

import zoo


def row(spec: zoo.BackboneSpec, tags: list[str]) -> str:
    """Return an architecture's line."""
    assert isinstance(spec.layers, dict)
    features = f"{spec.features.layout} {spec.features.dim}"
    groups = ", ".join(f"{name}.*" if any("*" in member for member in members) else name for name, members in spec.layers.items())
    cost = f"{spec.parameters / 1e6:.1f} | {spec.macs:.3g} | {spec.metrics['imagenet-top1']:.1f}"
    return f"| {spec.name.partition('/')[2]} | {', '.join(tags)} | {features} | {cost} | {groups} |"


def rows() -> list[str]:
    """Return a table row per architecture."""
    listed = {spec.name: spec for spec in zoo_torchvision.zoo_backbones()}
    lines = ["| name | tags | features | million parameters | GMACs | top-1 | groups |", "|---|---|---|---|---|---|---|"]
    for name, spec in listed.items():
        if "." not in name:
            lines.append(row(spec, [other.partition(".")[2] for other in listed if other.startswith(f"{name}.")]))
    return lines
