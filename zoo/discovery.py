"""Find the entry points of installed distributions, whatever state the distributions are in."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Found(NamedTuple):
    """One entry point and the distribution that declares it; ``fault`` or ``shadowed`` says why it is not to be loaded."""

    distribution: str
    name: str
    value: str
    version: str
    fault: str = ""
    shadowed: str = ""


def normalized(name: str) -> str:
    """Return a distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find_entry_points(group: str) -> list[Found]:
    """Return the entry points of ``group``, sorted by distribution; a distribution found twice on the path counts once."""
    first: dict[tuple[str, str], Found] = {}
    others: set[Found] = set()
    for found in _scan(group):
        key = (normalized(found.distribution), found.name)
        kept = first.setdefault(key, found)
        if kept != found:  # another version, which Python does not import: said, not loaded
            others.add(found._replace(shadowed=f"{kept.distribution} {kept.version} comes earlier on the path"))
    return sorted([*first.values(), *others], key=lambda found: (normalized(found.distribution), *found[1:]))


def _scan(group: str) -> Iterator[Found]:
    for distribution in importlib.metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except (OSError, UnicodeDecodeError):
            continue
        # Reading METADATA of every installed distribution would cost more than all the rest of a listing.
        if f"[{group}]" not in text:
            continue
        name, version, fault = _identity(distribution)
        try:
            points = [(point.name, point.value) for point in distribution.entry_points if point.group == group]
        except Exception as error:
            points, fault = [(name, "")], f"entry_points.txt cannot be read: {error}"
        yield from (Found(name, point, value, version, fault) for point, value in points)


def _identity(distribution: importlib.metadata.Distribution) -> tuple[str, str, str]:
    """Return name, version and fault; the folder's own name stands in where METADATA is missing or damaged."""
    try:
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        if name and version:
            return name, version, ""
    except Exception:  # what is raised for a missing file differs between Python versions
        pass
    stem, _, version = Path(str(getattr(distribution, "_path", "unknown"))).stem.partition("-")
    return stem, version, "its METADATA is missing or damaged; install the distribution again"
