"""Policy of which plugins may be imported: command line, environment and the user's file.

A plugin is imported only if none of the three blocks it and every list of allowed plugins has it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import OutputPermissionError, RegistryFileError, did_you_mean
from zoo.plugins.entry_points import Found, normalized
from zoo.util.atomic_write import config_folder, write_text
from zoo.util.toml_files import read_toml
from zoo.util.versions import DISTRIBUTION

OWN = normalized(DISTRIBUTION)  # may be missing in a list of allowed plugins, because it has the heads
KEYS = ("disable", "allow")


@dataclass(frozen=True)
class Rule:
    """One list of normalised names of entry points or distributions, and its origin."""

    names: frozenset[str]
    origin: str
    allow: bool = False


@dataclass(frozen=True)
class Policy:
    """All rules together."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, block: Iterable[str] = (), allow: Iterable[str] | None = None, origin: str = "by name") -> Policy:
        """Return the policy of two lists; ``allow=None`` allows all, an empty list none."""
        rules = [_rule(block, origin)] if block else []
        return cls((*rules, *([] if allow is None else [_rule(allow, origin, allow=True)])))

    def refusal(self, found: Found) -> str:
        """Return why an entry point must not be imported, or an empty string."""
        names = {normalized(found.name), normalized(found.distribution)}
        for rule in self.rules:
            if not rule.allow and names & rule.names:
                return f"blocked {rule.origin}"
        for rule in self.rules:
            if rule.allow and not names & rule.names and normalized(found.distribution) != OWN:
                return f"not among the plugins allowed {rule.origin}"
        return ""

    def unmatched(self, points: Collection[Found]) -> list[str]:
        """Return a message for each list that blocks names of no installed plugin, which may be misspelt."""
        unknown = [(unknown_names(sorted(rule.names), points), rule.origin) for rule in self.rules if not rule.allow]
        return [f"{', '.join(names)}: blocked {origin}, but no installed plugin is called so" for names, origin in unknown if names]


def current_policy(block: Iterable[str] = (), allow: Iterable[str] | None = None) -> Policy:
    """Return the policy in force: that of the command line, ``ZOO_PLUGINS_BLOCK``, ``ZOO_PLUGINS_ALLOW`` and the user's file.

    Raises:
        RegistryFileError: If the user's file cannot be read, as plugins that it blocks must not be imported.
    """
    rules = list(Policy.of(block, allow, "on the command line").rules)
    for variable, allows in (("ZOO_PLUGINS_BLOCK", False), ("ZOO_PLUGINS_ALLOW", True)):
        names = [*filter(None, re.split(r"[,\s]+", os.environ.get(variable, "")))]
        if names or (allows and variable in os.environ):  # an empty list allows none, as in the user's file
            rules.append(_rule(names, f"by {variable}", allow=allows))
    content = read_user_file()
    origin = f"by {user_file()}"
    rules += [_rule(content["disable"], origin)] if content["disable"] else []
    rules += [_rule(content["allow"], origin, allow=True)] if "allow" in content else []
    return Policy(tuple(rules))


def user_file() -> Path:
    """Return the file that ``zoo plugins disable`` writes."""
    return config_folder() / "plugins.toml"


def read_user_file() -> dict[str, list[str]]:
    """Return the content of the user's file: ``disable``, and ``allow`` if given.

    Raises:
        RegistryFileError: If it is no TOML, or has other keys.
    """
    path = user_file()
    try:
        document: dict[str, Any] = read_toml(path)
    except (FileNotFoundError, NotADirectoryError):
        return {"disable": []}
    except (OSError, ValueError) as error:
        raise RegistryFileError(f"{path} cannot be read: {error}; correct or remove it") from error
    faults = [f"it has no key {key!r}{did_you_mean(key, KEYS)}" for key in document if key not in KEYS]
    for key, value in document.items():
        if key in KEYS and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            faults.append(f"{key} is {value!r}; it must be a list of names")
    if faults:
        raise RegistryFileError(f"{path}: {'; '.join(faults)}")
    return {"disable": [], **document}


def switch(name: str, *, on: bool) -> Path:
    """Enable or disable a plugin in the user's file, which is rewritten.

    Raises:
        RegistryFileError: If an existing file cannot be read.
        OutputPermissionError: If it cannot be written.
    """
    content = read_user_file()
    same = normalized(name)
    content["disable"] = [one for one in content["disable"] if normalized(one) != same] + ([] if on else [name])
    if on and "allow" in content and same not in map(normalized, content["allow"]):
        content["allow"].append(name)
    lines = ["# Written by `zoo plugins disable` and `zoo plugins enable`."]
    lines += [f"{key} = {json.dumps(content[key], ensure_ascii=False)}" for key in KEYS if key in content]
    path = user_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "\n".join(lines) + "\n", private=True)
    except OSError as error:
        raise OutputPermissionError(
            f"{path} cannot be written: {error.strerror}; set ZOO_PLUGINS_BLOCK={name}, or XDG_CONFIG_HOME to a folder that can be"
        ) from error
    return path


def _rule(names: Iterable[str], origin: str, *, allow: bool = False) -> Rule:
    return Rule(frozenset(map(normalized, names)), origin, allow)


def unknown_names(names: Collection[str], points: Collection[Found]) -> list[str]:
    """Return the names that no installed plugin has, each with the nearest one."""
    known = {normalized(name): name for found in points for name in (found.name, found.distribution)}
    return [f"{name!r}{did_you_mean(name, known.values())}" for name in names if normalized(name) not in known]
