"""The search space as data: a range or a choice per option, the defaults, and what the user writes. No torch here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zoo.engine.options.augment_options import AUGMENTS
from zoo.engine.options.config import OPTIONS
from zoo.engine.options.recipe import Recipe
from zoo.engine.options.recipes import RECIPES
from zoo.errors import OptionError, did_you_mean, fault_list

FACTOR = "lr_factor"  # multiplies the learning rate of the recipe, as recipes differ in it
_NOT_SEARCHED = ("seed", "columns", "device", "workers", "precision", "timeout", "valid_split", "monitor", "root")


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
        if len(self.values) < 2 or len({json.dumps(value) for value in self.values}) < len(self.values):
            raise OptionError(f"a choice has two different values or more, and this one has {self.values!r}")

    def holds(self, value: Any) -> bool:
        """Return whether a value is one of them."""
        return value in self.values

    def __str__(self) -> str:
        return "|".join(map(str, self.values))


Dimension = Range | Choice


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        dimensions: A range or a choice by the name of an option, of ``recipe``, or of ``lr_factor``.
        default: The recipe of the first trial, and of all where ``recipe`` is not searched.
        samples: Number of training samples.
    """

    dimensions: Mapping[str, Dimension]
    default: Recipe

    def recipe(self, name: str) -> Recipe:
        """Return the recipe of a name; that of the default recipe is the default one, with its own fields."""
        return self.default if name == self.default.name else RECIPES[name]

    def applies(self, name: str, recipe: Recipe) -> bool:
        """Return whether a dimension has a meaning for a recipe."""
        if all(phase.frozen == "all" for phase in recipe.phases):
            return False  # the head is solved, without steps
        if name.startswith("lora_"):
            return recipe.trains == "lora"
        return name != "layer_decay" or recipe.trains == "all"

    def defaults(self, batch_size: int) -> dict[str, Any] | None:
        """Return the point of the default recipe; None if it is not inside the space."""
        known = {"recipe": self.default.name, FACTOR: 1.0, "lr": self.default.lr, "batch_size": batch_size, "freeze": 0}
        known |= {"layer_decay": self.default.layer_decay, "weight_decay": self.default.weight_decay, "augment": self.default.augment}
        names = [name for name in self.dimensions if name == "recipe" or self.applies(name, self.default)]
        if any(name not in known or not self.dimensions[name].holds(known[name]) for name in names):
            return None
        return {name: known[name] for name in names}

    def options(self, point: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
        """Return the recipe and the options of a point."""
        recipe = self.recipe(point.get("recipe", self.default.name))
        options = {name: value for name, value in point.items() if name not in ("recipe", FACTOR)}
        if FACTOR in point:
            options["lr"] = recipe.lr * point[FACTOR]
        return recipe, options

    def describe(self) -> dict[str, str]:
        """Return the space as text by name."""
        return {name: str(dimension) for name, dimension in self.dimensions.items()}


def default_space(default: Recipe, *, modality: str, groups: int, lora: bool) -> Space:
    """Return the space that is searched unless the user narrows it.

    Args:
        default: The default recipe.
        modality: What the backbone reads.
        groups: Number of its layer groups.
        lora: Whether LoRA can be had.
    """
    recipes = dict.fromkeys([default.name, "linear-probe", "lp-ft", "full", *(["lora"] if lora else [])])
    found: dict[str, Dimension] = {
        "recipe": Choice(tuple(recipes)),
        FACTOR: Range(0.1, 10.0, log=True),
        "layer_decay": Range(0.5, 1.0),
        "weight_decay": Range(1e-4, 0.3, log=True),
        "batch_size": Choice((8, 16, 32, 64)),
    }
    if groups > 1:
        found["freeze"] = Range(0, groups - 1, whole=True)
    if modality == "image":
        found["augment"] = Choice(tuple(AUGMENTS))
    if lora:
        found["lora_rank"] = Choice((4, 8, 16, 32))
    return Space(found, default)


def narrowed(space: Space, search: Mapping[str, Any], *, only: Collection[str] | None, given: Mapping[str, Any]) -> Space:
    """Return a space with the user's dimensions, without those that are given a value.

    Args:
        space: The default space.
        search: Own ranges and choices by name; as text, see ``parse``.
        only: Names of the dimensions to search; None for all.
        given: Options that are given a value.

    Raises:
        OptionError: Naming all unknown names, dimensions that cannot be read, and options that are given as well.
    """
    known, faults = ["recipe", FACTOR, *(name for name in OPTIONS if name not in _NOT_SEARCHED)], list[str]()
    own: dict[str, Dimension] = {}
    for name, value in search.items():
        if name not in known:
            faults.append(f"there is no option {name!r} to search{did_you_mean(name, known)}")
        elif name in given:
            faults.append(f"{name} is given and searched; leave one of them out")
        else:
            try:
                own[name] = value if isinstance(value, Range | Choice) else parse(value)
            except OptionError as error:
                faults.append(f"{name}: {error}")
    if "recipe" in own:
        choice = own["recipe"]
        unknown = [f"there is no recipe {name!r}{did_you_mean(str(name), RECIPES)}" for name in getattr(choice, "values", ["…"])]
        names = {*RECIPES, space.default.name}
        faults += [fault for fault, name in zip(unknown, getattr(choice, "values", ["…"]), strict=True) if name not in names]
    if "lr" in own and FACTOR in own:
        faults.append(f"lr and {FACTOR} decide the same; search one of them")
    left_out = {*given, *([FACTOR] if "lr" in own or "lr" in given else [])}
    dimensions = {name: one for name, one in {**space.dimensions, **own}.items() if name not in left_out}
    faults += [f"only: {name!r} is not searched{did_you_mean(name, dimensions)}" for name in only or () if name not in dimensions]
    dimensions = {name: one for name, one in dimensions.items() if only is None or name in only}
    if not dimensions and not faults:
        faults.append("everything is given; leave out the value of an option to search it")
    if faults:
        raise OptionError(fault_list("this space cannot be searched:", faults, "Such as lr=1e-5..1e-2,log or batch_size=8|16|32"))
    return replace(space, dimensions=dimensions)


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
        return Choice(tuple(_plain(part.strip()) for part in text.split("|")))
    raise OptionError(f"{text!r} is neither a range (1e-5..1e-2,log) nor a choice (8|16|32)")


def _plain(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word
