"""The catalogue that ships with the plugin: every architecture and published weights of one torchvision version, as plain data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import zoo
from zoo_torchvision.families import FAMILIES, layers

CATALOGUE = Path(__file__).with_name("catalogue.json")
DIGEST = re.compile(r"-([0-9a-f]{8,})\.pth")  # torchvision's file names end with the first digits of the sha256


@cache
def table() -> Mapping[str, Any]:
    """Read the catalogue."""
    catalogue: dict[str, Any] = json.loads(CATALOGUE.read_bytes())
    return catalogue


def backbones() -> Iterator[zoo.BackboneSpec]:
    """Yield every architecture (with torchvision's default weights) and each of its published weights."""
    for name, architecture in table()["architectures"].items():
        published: dict[str, Any] = architecture["weights"]
        for tag, weights in {"": published[architecture["default"]], **published}.items():
            yield _spec(name, tag, architecture, weights)


def _spec(name: str, tag: str, architecture: Mapping[str, Any], weights: Mapping[str, Any]) -> zoo.BackboneSpec:
    family = FAMILIES[architecture["family"]]
    sized = {"img_size": weights["size"]} if family.size_option else {}
    # The published weights of GoogLeNet and Inception were trained on another range than the one that their preprocessing gives.
    transformed = {"transform_input": True} if "transform_input" in family.options else {}
    return zoo.BackboneSpec(
        name=f"torchvision/{name}.{tag}" if tag else f"torchvision/{name}",
        build="zoo_torchvision.build:create",
        layers=layers(name, architecture["family"]),
        inputs=image(weights, fixed=bool(family.size_option)),
        features=zoo.Features(dim=architecture["dim"], layout=family.layout, prefix_tokens=int(family.layout == "BND")),
        weights=zoo.Weights(url=weights["url"], sha256_prefix=digest_prefix(weights["url"]), license=weights["license"]),
        options={"architecture": name, **sized, **transformed},
        convert="zoo_torchvision.load:convert",
        resize="zoo_torchvision.load:resize",
        home="zoo_torchvision.home:export",
        parameters=weights["parameters"],
        macs=weights["gmacs"],
        metrics={"imagenet-top1": weights["top1"]},
    )


def image(weights: Mapping[str, Any], *, fixed: bool) -> zoo.Image:
    """Return the declaration of an image input; its crop gives exactly torchvision's size of the resized image."""
    size, crop = weights["size"], weights["size"] / weights["resize"]
    return zoo.Image(
        size=size, mean=weights["mean"], std=weights["std"], interpolation=weights["interpolation"], crop=crop, fixed_size=fixed
    )


def digest_prefix(url: str) -> str:
    """Return the first digits of a file's sha256, which its name carries."""
    found = DIGEST.search(url)
    assert found, f"{url} carries no digest"
    return found[1]
