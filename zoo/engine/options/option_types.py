"""Types of option values, and the messages for wrong ones. No torch here."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from zoo.errors import OptionError, did_you_mean
from zoo.util.typed_words import split_names


@dataclass(frozen=True)
class Option:
    """What an option's declaration says besides its type and range.

    Flags, ``zoo train --help``, docs/options.md and the checks of combinations are made from it.

    Attributes:
        help: What it means, for the reference; the part before a semicolon for ``--help``.
        default: Its default in words; empty if that is the value in the declaration.
        section: Section of the reference.
        flag: Placeholder of its flag on the command line; empty if it is given with ``--set``.
        reads: Modalities that it applies to; empty for all.
        waits: Whether it depends on a metric, and so needs validation data.
        backbone: Whether it changes how the backbone trains, and so needs trainable groups.
        only: The values of ``trains`` that it applies to; empty for all.
        excludes: Options (``name``, or ``name=value``) that it cannot be combined with, and why.
        shards: Whether it can be combined with ``shard=True``.
        free: Whether it leaves the result unchanged, so that a resumed run may differ in it.
    """

    help: str
    default: str = ""
    section: str = "Training"
    flag: str = ""
    reads: tuple[str, ...] = ()
    waits: bool = False
    backbone: bool = False
    only: tuple[str, ...] = ()
    excludes: Mapping[str, str] = field(default_factory=dict)
    shards: bool = True
    free: bool = False


def no_bool(value: Any) -> Any:
    """Raise for True in place of a number: Python and YAML would read it as 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not a truth value")
    return value


def no_text(value: Any) -> Any:
    """Raise for text in place of True or False: Python takes "no" for true."""
    if isinstance(value, str):
        raise ValueError("must be True or False")
    return value


def pair_of(meaning: str) -> Callable[[Any], Any]:
    """Return a validator that takes a list of two, such as "low, high", or ``40,400`` as typed on the command line."""

    def check(value: Any) -> Any:
        if isinstance(value, str):
            value = tuple(map(str.strip, value.split(",")))
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise ValueError(f"must be two numbers ({meaning})")
        return value

    return check


def names_listed(value: Any) -> Any:
    """Return names written as ``a,b`` as a list; one with a comma is quoted as in a CSV file."""
    if isinstance(value, str):
        try:
            value = split_names(value)
        except OptionError:
            raise ValueError("""must be names with closed quotation marks; one with a comma is written '"A, small",B'""") from None
    if not isinstance(value, (list, tuple)) or not all(_is_column(name) for name in value):
        raise ValueError("must be a list of names")
    return tuple(map(str, value))


def _is_column(name: Any) -> bool:
    """Return whether a value names a column; those of a DataFrame may be numbers."""
    return bool(name) if isinstance(name, str) else type(name) is int


def column_named(value: Any) -> Any:
    """Check that a value is the name of a column, or a list of names."""
    if _is_column(value):
        return str(value)
    if not isinstance(value, (list, tuple)) or not value or not all(_is_column(name) for name in value):
        raise ValueError("must be the name of a column, or for the label a list of names")
    return list(map(str, value))


def path_text(value: Any) -> Any:
    """Return a path as text."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def among(known: Sequence[str]) -> Callable[[str], str]:
    """Return a validator that raises for unknown names, with the nearest known one."""

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"must be one of {', '.join(known)}{did_you_mean(value, known)}")
        return value

    return check


def weights_by_class(value: Any) -> Any:
    """Check that a value is ``balanced`` or a mapping from class names to positive weights."""
    if value is None or (isinstance(value, str) and value == "balanced"):
        return value
    if not isinstance(value, Mapping) or not all(_is_weight(weight) for weight in value.values()):
        raise ValueError("must be 'balanced', or a weight above 0 for each class by its name, such as {'ants': 1, 'bees': 3}")
    return {str(name): float(weight) for name, weight in value.items()}


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


Int = Annotated[int, BeforeValidator(no_bool)]
Float = Annotated[float, BeforeValidator(no_bool)]
Switch = Annotated[bool, BeforeValidator(no_text)]
Share = Annotated[Float, Field(ge=0, le=1)]
Alpha = Annotated[Float, Field(ge=0)]


def validation_faults(error: ValidationError, owners: Mapping[str, str] = MappingProxyType({}), owner: str = "") -> list[str]:
    """Return one fault per option; the messages of its alternative types are joined by "or"."""
    messages_of: dict[str, tuple[Any, list[str]]] = {}
    for problem in error.errors():
        parts = (str(part) for part in problem["loc"])
        keys = [part for part in parts if not part.startswith(("function-", "literal", "dict", "constrained"))]
        where = owners.get(keys[0], owner) + ".".join(keys)
        message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("must be ")
        messages_of.setdefault(where, (problem["input"], []))[1].append(message)
    return [f"{where} is {value!r}; it must be {' or '.join(messages)}" for where, (value, messages) in messages_of.items()]
