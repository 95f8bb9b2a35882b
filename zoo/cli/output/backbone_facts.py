"""Inputs and features of a backbone in words."""

from __future__ import annotations

from zoo.declare import BackboneSpec, Image, Inputs, Text
from zoo.errors import count


def described_features(spec: BackboneSpec) -> str:
    """Return what a sample becomes, and how the head pools it by default."""
    features = spec.features
    if spec.options.get("pooler"):
        return f"{features.dim} wide, {features.layout}, pooled by the backbone itself (pool 'pooler')"
    pooled = "one vector, without pooling" if features.pool == "none" else f"pooled by {features.pool}"
    return f"{features.dim} wide, {features.layout}, {pooled}{', of length 1' if features.normalize else ''}"


def described_inputs(inputs: Inputs) -> str:
    """Return what a backbone reads."""
    if isinstance(inputs, Text):
        return f"text of up to {inputs.max_length} tokens"
    sizes = f"{' x '.join(map(str, inputs.shape[1:]))} {'pixels' if isinstance(inputs, Image) else 'voxels'}"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (inputs.mean, inputs.std))
    mean, std = (f"({values})" if inputs.channels > 1 else values for values in (mean, std))
    facts = [sizes, count(inputs.channels, "channel")]
    if isinstance(inputs, Image):
        squashed = " to both edges" if inputs.squash else ""
        facts += [f"resized {inputs.interpolation}{squashed}", *([f"crop {inputs.crop:g}"] if inputs.crop != 1 else [])]
    elif isinstance(inputs.spacing, tuple):
        facts += [f"{' x '.join(f'{value:g}' for value in inputs.spacing)} mm"]
    return ", ".join([*facts, f"mean {mean}", f"std {std}"])
