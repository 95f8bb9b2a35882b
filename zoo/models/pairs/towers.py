"""The towers of a dual encoder as backbones: images and texts whose embeddings are in one space (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.declare import BackboneSpec, Pair
from zoo.errors import OptionError, did_you_mean

TOWERS = ("image", "text")


def pair_of(spec: BackboneSpec, what: str) -> Pair:
    """Return the pair of an image tower.

    Args:
        spec: The declaration.
        what: What needs it, for the message.

    Raises:
        OptionError: If it has no text tower.
    """
    if spec.pair is not None:
        return spec.pair
    remedy = "take one such as 'hf/openai/clip-vit-base-patch32'"
    if spec.name.startswith("saved/"):
        remedy = "a saved model keeps one tower alone; give the dual encoder that it began with, such as 'hf/openai/clip-vit-base-patch32'"
    raise OptionError(f"{what} needs a dual encoder of images and texts, and {spec.name!r} has no text tower; {remedy}")


def image_spec(spec: BackboneSpec, what: str = "tower='image'") -> BackboneSpec:
    """Return the image tower whose features are embeddings; it keeps the pair.

    Raises:
        OptionError: If there is no text tower.
    """
    pair = pair_of(spec, what)
    return spec.replace(options={**spec.options, **pair.options}, features=pair.features)


def text_spec(spec: BackboneSpec, what: str = "tower='text'") -> BackboneSpec:
    """Return the text tower, with the weights of the image tower.

    Raises:
        OptionError: If there is none.
    """
    return pair_of(spec, what).text.replace(weights=spec.weights)


def tower_spec(spec: BackboneSpec, options: Mapping[str, Any]) -> tuple[BackboneSpec, dict[str, Any]]:
    """Return the tower that the option ``tower`` of ``zoo.get`` names, and the options without it.

    Without the option an image tower stays as it is: its features are those before the projection into the common space.

    Raises:
        OptionError: For another name, or if there is no text tower.
    """
    rest = {name: value for name, value in options.items() if name != "tower"}
    if len(rest) == len(options):
        return spec, rest
    tower = options["tower"]
    if tower not in TOWERS:
        raise OptionError(f"tower is {tower!r}{did_you_mean(str(tower), TOWERS)}; it is 'image' or 'text'")
    return (image_spec if tower == "image" else text_spec)(spec), rest
