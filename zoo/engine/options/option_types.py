"""The kinds of values that options have, and what is told of one that is wrong. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from zoo.errors import did_you_mean


@dataclass(frozen=True)
class Option:
    """What stands beside the type and range of an option in its one declaration.

    Flags, ``zoo train --help``, docs/options.md and the checks of what goes together are made from it.

    Attributes:
        help: What it means, for the reference; the part before a semicolon for ``--help``.
        default: Its default in words; empty where that is the value in the declaration.
        section: Part of the reference that it stands in.
        flag: Placeholder of its own flag on the command line; empty where it is given with ``--set``.
        reads: Modalities that have a use for it; empty for all.
        waits: Whether it is decided by a metric, and so needs validation data.
        backbone: Whether it changes how the backbone trains, and so needs some of it to train.
        only: The value of ``trains`` that alone has a use for it; empty for all.
        excludes: Options (``name``, or ``name=value``) that it does not go with, with the reason.
        shards: Whether it goes with ``shard=True``.
        free: Whether it changes nothing of the result, so that a resumed run may have another.
    """

    help: str
    default: str = ""
    section: str = "Training"
    flag: str = ""
    reads: tuple[str, ...] = ()
    waits: bool = False
    backbone: bool = False
    only: str = ""
    excludes: Mapping[str, str] = field(default_factory=dict)
    shards: bool = True
    free: bool = False


def no_bool(value: Any) -> Any:
    """Refuse True where a number is meant: Python and YAML would read it as 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not a truth value")
    return value


def no_word(value: Any) -> Any:
    """Refuse a word where True or False is meant: Python takes "no" for true."""
    if isinstance(value, str):
        raise ValueError("must be True or False")
    return value


def pair(value: Any) -> Any:
    """Refuse what is not a list of two."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError("must be two numbers (low, high)")
    return value


def among(known: Sequence[str]) -> Callable[[str], str]:
    """Return a validator that refuses texts that are not known, with the nearest."""

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"must be one of {', '.join(known)}{did_you_mean(value, known)}")
        return value

    return check


def weights_by_class(value: Any) -> Any:
    """Refuse what is neither ``balanced`` nor a positive weight for each class by its name."""
    if value is None or value == "balanced":
        return value
    if not isinstance(value, Mapping) or not all(_is_weight(weight) for weight in value.values()):
        raise ValueError("must be 'balanced', or a weight above 0 for each class by its name, such as {'ants': 1, 'bees': 3}")
    return {str(name): float(weight) for name, weight in value.items()}


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


Int = Annotated[int, BeforeValidator(no_bool)]
Float = Annotated[float, BeforeValidator(no_bool)]
Switch = Annotated[bool, BeforeValidator(no_word)]
Share = Annotated[Float, Field(ge=0, le=1)]
Alpha = Annotated[Float, Field(ge=0)]


def all_told(error: ValidationError, owners: Mapping[str, str] = MappingProxyType({}), owner: str = "") -> list[str]:
    """Return one sentence per option; what each of its types would take is joined by "or"."""
    told: dict[str, tuple[Any, list[str]]] = {}
    for problem in error.errors():
        parts = (str(part) for part in problem["loc"])
        kept = [part for part in parts if not part.startswith(("function-", "literal", "dict", "constrained"))]
        where = owners.get(kept[0], owner) + ".".join(kept)
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("must be ")
        told.setdefault(where, (problem["input"], []))[1].append(message)
    return [f"{where} is {value!r}; it must be {' or '.join(messages)}" for where, (value, messages) in told.items()]
