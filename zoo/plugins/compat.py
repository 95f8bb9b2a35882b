"""Compatibility of a plugin with zoo and installed packages, from metadata alone."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping

from zoo.errors import examples
from zoo.hookspecs import API_VERSION
from zoo.plugins.entry_points import Found, normalized
from zoo.plugins.policy import OWN
from zoo.util.versions import DISTRIBUTION


def misfit(found: Found, versions: Mapping[str, str]) -> str:
    """Return why a plugin is incompatible, or an empty string.

    Args:
        found: Its entry point.
        versions: Version of every installed distribution, by normalised name.
    """
    if normalized(found.distribution) == OWN:
        return ""  # requirements of zoo itself are not checked
    if found.api and str(API_VERSION) not in found.api:
        return f"it was written for plugin API {', '.join(found.api)}, and this zoo has {API_VERSION}; install another version of either"
    unmet = list(_unmet(found.requires, versions))
    return f"it requires {examples(unmet)}" if unmet else ""


def required_versions(found: Found, versions: Mapping[str, str]) -> dict[str, str]:
    """Return the installed versions of a plugin's requirements; empty for missing ones."""
    names = sorted({normalized(_name(line)) for line in found.requires})
    return {name: versions.get(name, "") for name in names}


def _unmet(requires: tuple[str, ...], versions: Mapping[str, str]) -> Iterator[str]:
    # Imported here, because it takes longer than the rest of a listing and cached listings do not need it.
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import InvalidVersion

    for line in requires:
        try:
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            version = versions.get(normalized(requirement.name), "") or _version(requirement.name)
            if not version:
                other = f"; zoo is another project there: require {DISTRIBUTION}" if requirement.name == "zoo" else ""
                yield f"{line}, which is not installed{other}"
            elif not requirement.specifier.contains(version, prereleases=True):
                yield f"{line}, and {version} is installed"
        except InvalidVersion:  # versions such as that of a folder without release are accepted
            continue
        except InvalidRequirement as error:
            yield f"{line!r}, which cannot be read: {error}"


def _version(name: str) -> str:
    """Return an installed version from importlib, which also finds packages that are not listed on the path."""
    try:
        return importlib.metadata.version(name) or ""
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""


def _name(line: str) -> str:
    end = next((index for index, sign in enumerate(line) if not (sign.isalnum() or sign in "-_.")), len(line))
    return line[:end]
