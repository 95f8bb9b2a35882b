"""The table of networks and layer groups of the plugin's page, which scripts/make_plugin_pages.py writes."""

from __future__ import annotations

import zoo_medical

import zoo


def row(spec: zoo.BackboneSpec) -> str:
    """Return a network's line."""
    features = f"{spec.features.layout} {spec.features.dim}"
    groups = ", ".join(f"{name}.*" if any("*" in member for member in members) else name for name, members in spec.layers.items())  # type: ignore[union-attr]
    weights = spec.license if spec.weights else "none"
    shape = " x ".join(map(str, spec.inputs.shape))  # type: ignore[union-attr]  # no text is among them
    return f"| {spec.name} | {shape} | {features} | {spec.parameters / 1e6:.1f} | {weights} | {groups} |"


def rows() -> list[str]:
    """Return a table row per network."""
    lines = ["| name | input | features | million parameters | weights | groups |", "|---|---|---|---|---|---|"]
    return [*lines, *(row(spec) for spec in zoo_medical.zoo_backbones())]
