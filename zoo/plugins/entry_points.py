"""Entry points of installed distributions, also of damaged ones, found without importing anything."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class Found(NamedTuple):
    """One entry point and the distribution that declares it.

    Attributes:
        distribution: Name of the distribution.
        name: Name of the entry point.
        value: ``module`` or ``module:object``.
        version: Version of the distribution.
        fault: Why it cannot be loaded, or empty.
        shadowed: Distribution that comes earlier on the path in its place, or empty.
        api: Names of the entry points in the group ``<group>.api``: the versions it was written for.
        requires: Its ``Requires-Dist`` lines.
        info: Folder of its metadata; empty if there is none.
    """

    distribution: str
    name: str
    value: str
    version: str
    fault: str = ""
    shadowed: str = ""
    api: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    info: str = ""


class Installed(NamedTuple):
    """Entry points sorted by distribution, and the version of every distribution on the path."""

    points: list[Found]
    versions: Mapping[str, str]


def normalized(name: str) -> str:
    """Return a distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(group: str) -> Installed:
    """Return the entry points of ``group`` and all versions; a distribution found twice on the path counts once."""
    first: dict[tuple[str, str], Found] = {}
    others: dict[tuple[str, str, str], Found] = {}
    versions: dict[str, str] = {}
    for found in _scan(group, versions):
        key = (normalized(found.distribution), found.name)
        earlier = first.setdefault(key, found)
        if (earlier.value, earlier.version, earlier.fault) != (found.value, found.version, found.fault):
            # Another version, which Python would not import.
            others[(*key, found.version)] = found._replace(shadowed=f"{earlier.distribution} {earlier.version} comes earlier on the path")
    points = sorted([*first.values(), *others.values()], key=lambda found: (normalized(found.distribution), *found[1:6]))
    return Installed(points, versions)


def _scan(group: str, versions: dict[str, str]) -> Iterator[Found]:
    for distribution in importlib.metadata.distributions():
        name, version = _folder_name(distribution)
        if not version:  # an egg-info, or a finder without folders
            name, version, _ = _identity(distribution)
        versions.setdefault(normalized(name), version)
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except (OSError, UnicodeDecodeError):
            continue
        # Reading METADATA of every installed distribution would take longer than the rest of a listing.
        if f"[{group}]" in text:
            yield from _points(distribution, group)


def _points(distribution: importlib.metadata.Distribution, group: str) -> Iterator[Found]:
    name, version, fault = _identity(distribution)
    api: tuple[str, ...] = ()
    try:
        points = [(point.name, point.value) for point in distribution.entry_points if point.group == group]
        api = tuple(sorted(point.name for point in distribution.entry_points if point.group == f"{group}.api"))
    except Exception as error:
        points, fault = [(name, "")], f"entry_points.txt cannot be read: {error}"
    try:
        requires = tuple(distribution.requires or ())
    except Exception:  # METADATA is missing, see ``fault``
        requires = ()
    info = str(getattr(distribution, "_path", ""))
    yield from (Found(name, point, value, version, fault, api=api, requires=requires, info=info) for point, value in points)


def _identity(distribution: importlib.metadata.Distribution) -> tuple[str, str, str]:
    """Return name, version and fault; the folder's name replaces missing or damaged METADATA."""
    try:
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        if name and version:
            return name, version, ""
    except Exception:  # the error for a missing file differs between Python versions
        pass
    return *_folder_name(distribution), "its METADATA is missing or damaged; install the distribution again"


def _folder_name(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    path = Path(str(getattr(distribution, "_path", "unknown")))
    stem, _, version = path.stem.partition("-")
    return stem, version if path.suffix == ".dist-info" else ""
