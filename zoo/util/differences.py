"""Differences between two records in JSON's form, entry by entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def record_differences(name: str, before: Any, now: Any) -> list[str]:
    """Return each entry that differs, such as ``recipe.phases[0].epochs was 1 and is 2``; empty where all are equal.

    Of entries that have names of their own, such as recipes, two with other names differ by these alone.

    Args:
        name: Name of the whole.
        before: The earlier value.
        now: The present one.
    """
    return list(_differences(name, before, now))


def _differences(name: str, before: Any, now: Any) -> Iterator[str]:
    if before == now:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if before.get("name") != now.get("name"):
            yield from _differences(name, before.get("name"), now.get("name"))
            return
        for key in {**before, **now}:
            if key in before and key in now:
                yield from _differences(f"{name}.{key}", before[key], now[key])
            else:
                yield f"{name}.{key} was {_value(before, key)} and is {_value(now, key)}"
    elif isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        for index, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _differences(f"{name}[{index}]", one, other)
    else:
        yield f"{name} was {before!r} and is {now!r}"


def _value(record: Mapping[str, Any], key: str) -> str:
    return repr(record[key]) if key in record else "absent"
