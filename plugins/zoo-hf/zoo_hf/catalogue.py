"""The well-known repositories that ship with the plugin, as plain data: listing and describing them needs no network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import zoo
from zoo_hf.describe import described, pair_of

CATALOGUE = Path(__file__).with_name("catalogue.json")


@cache
def table() -> Mapping[str, Any]:
    """Read the catalogue: repository -> facts."""
    told: dict[str, Any] = json.loads(CATALOGUE.read_bytes())
    return told


def backbones() -> Iterator[zoo.BackboneSpec]:
    """Yield every well-known repository."""
    for repo, facts in table().items():
        yield entry(repo, facts)


def entry(repo: str, facts: Mapping[str, Any]) -> zoo.BackboneSpec:
    """Return the declaration of one repository.

    Args:
        repo: ``owner/name``.
        facts: ``config`` (of a dual encoder also ``whole``, from which the text tower is made) and ``license``, and where they apply
            ``pool``, ``normalize``, ``max_length``, ``processor``, ``parameters``, ``description``.
    """
    whole = facts.get("whole")
    return described(
        f"hf/{repo}",
        facts["config"],
        weights=zoo.Weights(repo=repo, license=facts.get("license", "unknown")),
        files=repo,
        pool=facts.get("pool", ""),
        normalize=facts.get("normalize", False),
        max_length=facts.get("max_length"),
        processor=facts.get("processor"),
        parameters=facts.get("parameters", 0),
        description=facts.get("description", ""),
        pair=pair_of(f"hf/{repo}", facts["config"], whole, files=repo) if whole else None,
    )
