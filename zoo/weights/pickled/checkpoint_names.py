"""Names of the tensors in a checkpoint; checks that no value of a checkpoint overrides a method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import WeightsError, count, examples

_MAX_KEY = 2**63  # whole numbers from here on are not positions of layers
_RESERVED = "__metadata__"  # of the header of safetensors


def by_name(entry: Mapping[Any, Any], kinds: tuple[type[Any], ...], source: Path) -> dict[str, Any]:
    """Return the values of a checkpoint by text.

    Args:
        entry: The values; their keys may be texts, or whole numbers as in the state of a list of layers.
        kinds: Types whose values need a name that safetensors can hold.
        source: The checkpoint, for messages.

    Raises:
        WeightsError: If two keys give one name, or tensors have keys that are not names.
    """
    named, keys = dict[str, Any](), dict[str, Any]()
    duplicates, invalid = list[str](), list[str]()
    for key, value in entry.items():
        name = _name(key)
        if isinstance(value, kinds) and not _is_name(key):
            invalid.append(name)
        elif name in named:
            duplicates.append(f"{keys[name]!r} and {key!r}")
        else:
            named[name], keys[name] = value, key
    faults = [f"keys that give one name: {examples(duplicates)}"] if duplicates else []
    if invalid:
        faults.append(f"{count(len(invalid), 'tensor')} under keys that are no printable names: {examples(invalid)}")
    if faults:
        raise WeightsError(f"{str(source)!r} has {' and '.join(faults)}; rename them, and save it again")
    return named


def check_no_overridden_methods(value: Any, source: Path) -> None:
    """Check that a checkpoint sets no attribute that has the name of a method, which would be called in the method's place.

    Raises:
        WeightsError: Naming the attributes.
    """
    own = getattr(value, "__dict__", None)
    replaced = [name for name in own if callable(getattr(type(value), str(name), None))] if isinstance(own, dict) else []
    if replaced:
        raise WeightsError(
            f"{str(source)!r} replaces {examples(sorted(map(str, replaced)))} of a {type(value).__name__}; weights need no such thing"
        )


def _name(key: Any) -> str:
    """Return a text for a key that can be printed."""
    if isinstance(key, str):
        return key.encode("utf-8", "backslashreplace").decode()
    if type(key) is int and abs(key) >= _MAX_KEY:
        return f"a number of {key.bit_length()} bits"
    return str(key) if key is None or isinstance(key, int | float | bytes) else f"a key of type {type(key).__name__}"


def _is_name(key: Any) -> bool:
    if isinstance(key, str):
        return key.isprintable() and key != _RESERVED
    return type(key) is int and abs(key) < _MAX_KEY
