"""Dimensions of a search: ranges and choices, read from text and fitted to the option that they are of. No torch here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from zoo.engine.options.augment_options import AugmentFields
from zoo.engine.options.config import Config
from zoo.errors import OptionError
from zoo.util.typed_words import plain_value

FACTOR = "lr_factor"  # multiplies the learning rate of the recipe, as recipes differ in it


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included.

    Attributes:
        low: Lower end.
        high: Upper end.
        log: Whether equal ratios are equally likely.
        whole: Whether only whole numbers are.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or not math.isfinite(self.low + self.high):
            raise OptionError(f"the range {self.low:g}..{self.high:g} is empty; the lower end comes first")
        if self.log and self.low <= 0:
            raise OptionError(f"the range {self.low:g}..{self.high:g},log starts at or below 0; a logarithmic one starts above")

    def holds(self, value: Any) -> bool:
        """Return whether a value is in the range."""
        return isinstance(value, int | float) and self.low <= value <= self.high and (not self.whole or float(value).is_integer())

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}{',log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        try:
            different = {json.dumps(value) for value in self.values}
        except (TypeError, ValueError) as error:
            kinds = ", ".join(sorted({type(value).__name__ for value in self.values}))
            raise OptionError(f"a choice is among texts, numbers, True, False and None, and this one has: {kinds}") from error
        if len(self.values) < 2 or len(different) < len(self.values):
            raise OptionError(f"a choice has two different values or more, and this one has {self.values!r}")

    def holds(self, value: Any) -> bool:
        """Return whether a value is one of them."""
        return value in self.values

    def __str__(self) -> str:
        return "|".join(map(str, self.values))


Dimension = Range | Choice


def dimension_of(name: str, value: Any) -> Dimension:
    """Return a dimension of an option: whole numbers only where the option takes no others.

    Raises:
        OptionError: If the value is no dimension, or a range that the option cannot take.
    """
    given = isinstance(value, Range | Choice)
    found: Dimension = value if given else parse(value)
    if not isinstance(found, Range):
        return found
    number = _number_of(name)
    if number is None:
        example = "full|lora" if name == "recipe" else "a|b"
        raise OptionError(f"it takes no numbers, and {found} is a range; give a choice, such as {example}")
    if number is float:
        return found if given else replace(found, whole=False)
    if not (float(found.low).is_integer() and float(found.high).is_integer()):
        raise OptionError(f"it takes whole numbers, and {found} has other ends")
    return replace(found, whole=True)


def _number_of(name: str) -> type | None:
    """Return the kind of number that an option takes, int or float; None if it takes none."""
    special: Mapping[str, type | None] = {FACTOR: float, "image_size": int, "recipe": None}
    if name in special:
        return special[name]
    fields = AugmentFields.model_fields if name in AugmentFields.model_fields else Config.model_fields
    kinds = _union(fields[name].annotation)
    return next((kind for kind in (float, int) if kind in kinds), None)


def _union(annotation: Any) -> set[Any]:
    """Return the members of a union of types, without their annotations."""
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_union, get_args(annotation)))
    return _union(get_args(annotation)[0]) if get_origin(annotation) is Annotated else {annotation}


def parse(value: Any) -> Dimension:
    """Return a dimension from ``1e-5..1e-2,log``, ``0..4``, ``8|16|32``, a pair of numbers or a list of values.

    Raises:
        OptionError: If it is none of these.
    """
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(end, int | float) and not isinstance(end, bool) for end in value):
        return Range(value[0], value[1], whole=all(isinstance(end, int) for end in value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return Choice(tuple(value))
    text = str(value).strip()
    ends, _, kind = text.partition(",")
    low, sign, high = ends.partition("..")
    if sign and kind.strip() in ("", "log"):
        whole = all(re.fullmatch(r"\s*-?\d+\s*", end) for end in (low, high))
        try:
            numbers = float(low), float(high)
        except ValueError:
            numbers = None
        if numbers is not None:
            return Range(*numbers, log=bool(kind), whole=whole)
    if "|" in text:
        return Choice(tuple(plain_value(part) for part in text.split("|")))
    raise OptionError(f"{text!r} is neither a range (1e-5..1e-2,log) nor a choice (8|16|32)")
