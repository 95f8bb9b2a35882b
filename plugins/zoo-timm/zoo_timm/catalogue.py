"""The catalogue that ships with the plugin: every architecture and pretrained tag of one timm version, as plain data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import zoo

# One object for all specs: what is the same everywhere is built once.
COMMON: dict[str, Any] = {
    "build": "zoo_timm.build:create",
    "layers": "zoo_timm.groups:layers",
    "convert": "zoo_timm.load:convert",
    "resize": "zoo_timm.resize:resize",
    "home": "zoo_timm.home:export",
}
CATALOGUE = Path(__file__).with_name("catalogue.json")
COLUMNS = ("name", "features", "inputs", "parameters", "gmacs", "license", "weights", "top1")


@cache
def table() -> Mapping[str, Any]:
    """Read the catalogue."""
    catalogue: dict[str, Any] = json.loads(CATALOGUE.read_bytes())
    return catalogue


def backbones() -> Iterator[zoo.BackboneSpec]:
    """Yield every architecture (with the weights of its default tag) and every pretrained tag."""
    shared, columns = table()["shared"], table()["columns"]
    inputs = [image(*values) for values in shared["inputs"]]
    shapes = [zoo.Features(dim=dim, layout=layout, pool=pool, prefix_tokens=prefix) for dim, layout, pool, prefix, _ in shared["features"]]
    unpooled = [values[-1] for values in shared["features"]]
    licenses = shared["licenses"]
    for name, shape, eaten, parameters, gmacs, license_, source, top1 in zip(*(columns[column] for column in COLUMNS), strict=True):
        yield zoo.BackboneSpec(
            name=f"timm/{name}",
            inputs=inputs[eaten],
            features=shapes[shape],
            weights=weights(name, source, licenses[license_]) if source else None,
            options=options(name, unpooled[shape]),
            parameters=parameters,
            macs=gmacs,
            metrics={"imagenet-top1": top1} if top1 else {},
            **COMMON,
        )


@cache
def _prefixes() -> Mapping[str, int]:
    """Return the tokens in front of the patches of each architecture whose features are tokens."""
    shapes, columns = table()["shared"]["features"], table()["columns"]
    pairs = zip(columns["name"], (shapes[place] for place in columns["features"]), strict=True)
    return {name: prefix for name, (_, layout, _, prefix, _) in pairs if layout == "BND"}


def declared_prefix(architecture: str) -> int | None:
    """Return the tokens in front of the patches that an architecture is declared with; None where its features are no tokens."""
    return _prefixes().get(architecture)


def image(size: list[int], mean: list[float], std: list[float], interpolation: str, crop: float, fixed: bool) -> zoo.Image:
    """Return the declaration of an image input."""
    return zoo.Image(size=tuple(size), mean=tuple(mean), std=tuple(std), interpolation=interpolation, crop=crop, fixed_size=fixed)  # type: ignore[arg-type]  # two numbers


def weights(name: str, source: str | int, license_: str) -> zoo.Weights:
    """Return where weights are: 1 is timm's own repository of that name, text is another repository or a URL."""
    if isinstance(source, int):
        return zoo.Weights(repo=f"timm/{name}", license=license_)
    if source.startswith(("https://", "http://")):
        return zoo.Weights(url=source, license=license_)
    return zoo.Weights(repo=source, license=license_)


def options(name: str, unpooled: bool) -> dict[str, Any]:
    """Return what the builder is called with."""
    return {"architecture": name, "unpooled": True} if unpooled else {"architecture": name}
