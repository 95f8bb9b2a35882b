"""The search space as data: a range or a choice per option, the defaults, and the user's own. No torch here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from zoo.engine.options.augment_options import AUGMENTS
from zoo.engine.options.config import DECLARED, OPTIONS
from zoo.engine.options.recipe import Recipe
from zoo.engine.options.recipes import RECIPES, default_recipe
from zoo.errors import OptionError, did_you_mean, fault_list
from zoo.select.tuning_search.dimensions import FACTOR, Choice, Dimension, Range, dimension_of

if TYPE_CHECKING:
    from zoo.models.task_model import TaskModel

_NOT_SEARCHED = ("seed", "columns", "device", "workers", "precision", "timeout", "valid_split", "monitor", "root")


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        dimensions: A range or a choice by the name of an option, of ``recipe``, or of ``lr_factor``.
        default: The recipe of the first trial, and of all where ``recipe`` is not searched.
        own: Names of the dimensions that the user gave.
    """

    dimensions: Mapping[str, Dimension]
    default: Recipe
    own: frozenset[str] = frozenset()

    def recipe(self, name: str) -> Recipe:
        """Return the recipe of a name; that of the default recipe is the default one, with its own fields."""
        return self.default if name == self.default.name else RECIPES[name]

    def applies(self, name: str, recipe: Recipe) -> bool:
        """Return whether a dimension has a meaning for a recipe.

        A head on a frozen backbone is solved and has none by default; those of the user apply where every trial is of such a recipe.
        """
        if all(phase.frozen == "all" for phase in recipe.phases):
            of_backbone = name == "freeze" or (name in DECLARED and (DECLARED[name].backbone or bool(DECLARED[name].only)))
            return name in self.own and "recipe" not in self.dimensions and not of_backbone
        if name in DECLARED and DECLARED[name].only:
            return recipe.trains in DECLARED[name].only
        return name != "layer_decay" or recipe.trains == "all"

    def defaults(self, batch_size: int) -> dict[str, Any] | None:
        """Return the point of the default recipe; None if it is not inside the space."""
        known = {"recipe": self.default.name, FACTOR: 1.0, "lr": self.default.lr, "batch_size": batch_size, "freeze": 0}
        known |= {"layer_decay": self.default.layer_decay, "weight_decay": self.default.weight_decay, "augment": self.default.augment}
        names = [name for name in self.dimensions if name == "recipe" or self.applies(name, self.default)]
        if any(name not in known or not self.dimensions[name].holds(known[name]) for name in names):
            return None
        return {name: known[name] for name in names}

    def is_empty(self) -> bool:
        """Return whether no dimension has a meaning, so that all trials would be equal."""
        return "recipe" not in self.dimensions and not any(self.applies(name, self.default) for name in self.dimensions)

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
        only: Names of the dimensions to search, as a list or as text with commas; None for all.
        given: Options that are given a value.

    Raises:
        OptionError: Naming all unknown names, dimensions that cannot be read, and options that are given as well.
    """
    own, faults = _own_dimensions(search, given, space.default)
    only = _names(only)
    left_out = {*given, *([FACTOR] if "lr" in own or "lr" in given else [])}
    dimensions = {name: one for name, one in {**space.dimensions, **own}.items() if name not in left_out}
    faults += _not_searched(only, dimensions)
    dimensions = {name: one for name, one in dimensions.items() if only is None or name in only}
    found = replace(space, dimensions=dimensions, own=frozenset(own))
    if not dimensions and not faults:
        faults.append("everything is given; leave out the value of an option to search it")
    elif not faults and found.is_empty():
        listed = ", ".join(dimensions)
        faults.append(f"nothing of {listed} has a meaning for the recipe {space.default.name!r}; name options that have, or another recipe")
    _refuse(faults)
    return found


def check_search(search: Mapping[str, Any], only: Collection[str] | None) -> None:
    """Check names and ranges as far as that needs no model; see ``narrowed``.

    Raises:
        OptionError: Naming all that cannot be searched.
    """
    default = default_recipe("single-label")
    own, faults = _own_dimensions(search, {}, default)
    widest = default_space(default, modality="image", groups=2, lora=True)
    _refuse(faults + _not_searched(_names(only), {**widest.dimensions, **own, **dict.fromkeys(search)}))


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise OptionError(fault_list("this space cannot be searched:", faults, "Such as 'lr=1e-5..1e-2,log' or 'batch_size=8|16|32'"))


def _names(only: Collection[str] | None) -> Collection[str] | None:
    return [name.strip() for name in only.split(",")] if isinstance(only, str) else only


def _not_searched(only: Collection[str] | None, dimensions: Collection[str]) -> list[str]:
    """Return a fault for each name of ``only`` that is no dimension."""
    fault = "only (--only) names {0!r}{1}, which has no range; give it one with search (--search {0}=…), or name one of: {2}"
    known = ", ".join(dimensions)
    return [fault.format(name, did_you_mean(name, dimensions), known) for name in only or () if name not in dimensions]


def _own_dimensions(search: Any, given: Collection[str], default: Recipe) -> tuple[dict[str, Dimension], list[str]]:
    """Return the user's ranges and choices, and what is wrong with others."""
    if not isinstance(search, Mapping):
        raise OptionError(f"search is {search!r}; give a range or a choice by the name of each option, such as {{'lr': '1e-5..1e-2,log'}}")
    known, faults = ["recipe", FACTOR, *(name for name in OPTIONS if name not in _NOT_SEARCHED)], list[str]()
    own: dict[str, Dimension] = {}
    for name, value in search.items():
        if name not in known:
            faults.append(f"there is no option {name!r} to search{did_you_mean(name, known)}")
        elif name in given:
            faults.append(f"{name} is given and searched; leave one of them out")
        else:
            try:
                own[name] = dimension_of(name, value)
            except OptionError as error:
                faults.append(f"{name}: {error}")
    if isinstance(recipes := own.get("recipe"), Choice):
        names = {*RECIPES, default.name}
        faults += [f"there is no recipe {name!r}{did_you_mean(str(name), RECIPES)}" for name in recipes.values if name not in names]
    if "lr" in own and FACTOR in own:
        faults.append(f"lr and {FACTOR} decide the same; search one of them")
    return own, faults


def space_of(
    model: TaskModel, default: Recipe, search: Mapping[str, Any], *, only: Collection[str] | None, given: Mapping[str, Any]
) -> Space:
    """Return what is searched for a model, without the options that are given."""
    lora = find_spec("peft") is not None
    whole = default_space(default, modality=model.spec.modality, groups=len(model.groups), lora=lora)
    return narrowed(whole, search, only=only, given=given)
