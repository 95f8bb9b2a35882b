"""The declared families of transformers, by their ``model_type``: those of this plugin, and what others add."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

import zoo
from zoo_hf.family import Family
from zoo_hf.image_families import IMAGE
from zoo_hf.text_families import TEXT

log = logging.getLogger("zoo")

GROUP = "zoo_hf.families"  # of entry points; each names a mapping model_type -> Family
FAMILIES: dict[str, Family] = dict(sorted({**TEXT, **IMAGE}.items()))


def register(model_type: str, family: Family) -> None:
    """Add a family for this process; an installed package adds its own by an entry point.

    Args:
        model_type: As config.json names it.
        family: Its declaration.

    Raises:
        zoo.ZooError: If there is another family of this name, or this is none.
    """
    if not isinstance(family, Family):
        raise zoo.ZooError(f"{model_type!r} is declared by {type(family).__name__}; give a zoo_hf.Family")
    if FAMILIES.setdefault(model_type, family) != family:
        raise zoo.ZooError(f"zoo-hf has the family {model_type!r} already; another one cannot take its place")


def families() -> Mapping[str, Family]:
    """Return every declared family, those that installed packages add among them."""
    _contributed()
    return FAMILIES


def declared(model_type: str) -> Family | None:
    """Return a declared family; other packages are asked only for one that this plugin has not."""
    return FAMILIES.get(model_type) or families().get(model_type)


def towers() -> Mapping[str, str]:
    """Return the family of the images' part by the ``model_type`` of models of images and texts, such as CLIP."""
    return {family.composite: kind for kind, family in families().items() if family.composite and family.reads == "image"}


def text_tower(composite: str) -> str:
    """Return the family of the texts' part of models of images and texts; empty where there is none."""
    return next((kind for kind, family in families().items() if family.composite == composite and family.reads == "text"), "")


@cache
def _contributed() -> None:
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.value):
        try:
            for model_type, family in dict(point.load()).items():
                register(model_type, family)
        except Exception as error:  # a fault of one package must not take the families of others
            log.warning("families of %s (%s) are left out: %s: %s", _owner(point), point.value, type(error).__name__, error)


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.name
