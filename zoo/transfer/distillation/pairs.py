"""Pairs of layer groups, one of the student and one of the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from zoo.errors import LISTED, OptionError, did_you_mean, examples
from zoo.models.layers import LayerGroups

Pairs: TypeAlias = "tuple[tuple[str, str], ...]"


def read_pairs(value: Any, option: str) -> Pairs:
    """Return pairs of names: from a mapping, from ``"stage2:layer3,stage3"``, or from names that both have.

    Raises:
        OptionError: If it is none of these.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    named = list(value.items()) if isinstance(value, Mapping) else value
    if isinstance(named, list | tuple):
        pairs = [_pair(each) for each in named]
        if pairs and all(isinstance(name, str) and name for pair in pairs for name in pair):
            return tuple((one, other) for one, other in pairs)
    example = "{'student group': 'teacher group'}, 'student group:teacher group', or the name of a group that both have"
    raise OptionError(f"{option} is {value!r}; give layer groups as {example}")


def _pair(value: Any) -> tuple[Any, Any]:
    if isinstance(value, str):
        one, _, other = value.partition(":")
        return one.strip(), other.strip() or one.strip()
    return (value[0], value[1]) if isinstance(value, list | tuple) and len(value) == 2 else (None, None)


def faults_of(pairs: Pairs, option: str, student: LayerGroups, teacher: LayerGroups) -> list[str]:
    """Return a fault for each name that is no layer group, with the nearest."""
    sides = [("student", one, student) for one, _ in pairs] + [("teacher", other, teacher) for _, other in pairs]
    return [
        f"{option}: the {side} has no layer group {name!r}{did_you_mean(name, groups.names)}; it has: {examples(groups.names, LISTED)}"
        for side, name, groups in dict.fromkeys(sides)
        if name not in groups.names
    ]
