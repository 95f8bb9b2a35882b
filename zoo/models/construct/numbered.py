"""Checkpoints of ``nn.Sequential(*network.children())``, whose tensors are named by numbers: their parts of the backbone by order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor


def numbered_prefix(state: Mapping[str, Tensor]) -> str | None:
    """Return the prefix below which most tensors of a file are, each in a part that is called by a number; None if there is none."""
    found = Counter(prefix for key in state if (prefix := _prefix(key)) is not None)
    prefix, number = found.most_common(1)[0] if found else ("", 0)
    return prefix if 2 * number > len(state) else None


def by_number(state: Mapping[str, Tensor], target: Iterable[str]) -> dict[str, Tensor] | None:
    """Return the tensors of a file with numbered parts, the numbers replaced by the parts of a module in their order.

    Numbers of parts without tensors, such as activations, are skipped on both sides; what is below a part keeps its name.

    Args:
        state: The file.
        target: Names of the module's tensors, in the order in which they are registered.

    Returns:
        All tensors of the file, those beside the numbered parts under their own names, or None if the file has no numbered parts.
    """
    prefix = numbered_prefix(state)
    if prefix is None:
        return None
    numbers = {key: int(key[len(prefix) :].partition(".")[0]) for key in state if _prefix(key) == prefix}
    parts = dict(zip(sorted(set(numbers.values())), dict.fromkeys(name.partition(".")[0] for name in target), strict=False))
    return {_renamed(key, prefix, parts.get(numbers.get(key, -1))): value for key, value in state.items()}


def _renamed(key: str, prefix: str, part: str | None) -> str:
    return key if part is None else f"{part}.{key[len(prefix) :].partition('.')[2]}"


def _prefix(key: str) -> str | None:
    """Return what stands before the first part of a name that is a number, or None."""
    parts = key.split(".")
    at = next((index for index, part in enumerate(parts) if part.isdigit()), None)
    return None if at is None else "".join(f"{part}." for part in parts[:at])
