"""The candidates of ``recipe="auto"``: how much of the backbone trains, from nothing to everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zoo.engine.options.config import DECLARED
from zoo.engine.options.recipe import Phase, Recipe
from zoo.engine.options.recipes import RECIPES
from zoo.engine.runtime.launch_env import launched
from zoo.errors import OptionError, fault_list
from zoo.select.recipe_search.halving import PROBE

# Options of gradient descent that a solved probe ignores.
_PROBE_STEPS = ("lr", "optimizer", "optimizer_options", "schedule", "warmup", "weight_decay", "clip_grad", "patience", "epochs")
# Options of a backbone that trains, of its several phases, and of images that are new in every epoch.
_OF_TUNING = (
    *("layer_decay", "l2_sp", "delta", "bss", "drop_path", "recompute", "freeze_bn", "average", "wise_ft", "refit_bias"),
    *("augment", "mixup", "cutmix", "rand_augment", "erase", "views"),
)


def candidates(default: Recipe, groups: int, frozen: int = 0) -> list[Recipe]:
    """Return the recipes to try, the cheapest first; two that would train the same groups are one.

    Args:
        default: The default recipe of the task.
        groups: Number of layer groups.
        frozen: Groups that are frozen in any case.
    """
    phases = (Phase(name="probe", frozen="all", solve=True, augment=False),)
    found = [replace(RECIPES["linear-probe"], name=PROBE, phases=phases)]
    top = RECIPES["top"]
    prefixes = {"top": groups - 2, "half": groups // 2}
    taken = {groups, frozen}
    for name, prefix in prefixes.items():
        if prefix <= frozen or prefix in taken:
            continue
        taken.add(prefix)
        tuned = replace(top.phases[-1], name=name, frozen=prefix)
        found.append(replace(top, name=name, phases=(top.phases[0], tuned)))
    return [*found, RECIPES["lora"], default]


def options_for(recipe: Recipe, options: Mapping[str, Any], *, solved: bool = False) -> dict[str, Any]:
    """Return the given options that have a meaning for a candidate.

    Args:
        recipe: The candidate.
        options: The given options.
        solved: Whether the head of the probe is solved for its optimum.
    """
    left_out = tuple(name for name, option in DECLARED.items() if option.only and recipe.trains not in option.only)
    if recipe.name == PROBE:
        left_out = (*left_out, *_OF_TUNING, *(_PROBE_STEPS if solved else ()))
    return {name: value for name, value in options.items() if name not in left_out}


def check_auto(options: Mapping[str, Any]) -> None:
    """Check that no option contradicts the choice, before torch is needed.

    Raises:
        OptionError: Naming all of them, with the reasons.
    """
    reasons = {
        "objective": "what is minimised decides what can be unfrozen; name a recipe for it",
        "log_with": "a tracker follows one run, and several are made; name a recipe for it",
        "shard": "it needs several processes, and the candidates run in one; name a recipe for it",
        "trains": "auto chooses it; name a recipe for it",
    }
    faults = [f"{name}: {why}" for name, why in reasons.items() if options.get(name)]
    if options.get("freeze") == "all":
        faults.append("freeze='all': nothing is left to choose; take recipe='linear-probe'")
    if launched() > 1:
        faults.append("several processes: the candidates run in one; leave --num-processes out, or name a recipe")
    if faults:
        raise OptionError(fault_list("recipe 'auto' cannot run with these:", faults))
