"""Given options over the defaults of a recipe, all faults in one error."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from zoo.engine.options.augment_options import AUGMENT_FIELDS, resolve_augment
from zoo.engine.options.config import DECLARED, OPTIONS, SWITCHES, Config
from zoo.engine.options.model_selection import resolve_monitor
from zoo.engine.options.option_types import validation_faults
from zoo.engine.options.recipe import COUPLED, DECIDED, TRAINS, Recipe
from zoo.engine.options.recipes import RECIPES, resolve_recipe
from zoo.errors import OptionError, did_you_mean, fault_list, refusals
from zoo.models.checks.misplaced import MISPLACED, RENAMED, remedies
from zoo.tasks.find import find_task
from zoo.tasks.task import Task

_IN_PYTHON = ("metrics", "on_epoch", "log_with", "objective")  # arguments of fit() that only Python can hold
# Arguments of fit() that are not options, which a misspelt one may have meant.
_BESIDE = ("recipe", "budget", "train", "valid", "out", "resume", "quiet", *_IN_PYTHON)

# Optimizers of torch, listed without importing it; other names are looked up.
TORCH_OPTIMIZERS = COUPLED | {"adamw", "adafactor"}

# Options of gradient descent; a solved head ignores them.
_GRADIENT_OPTIONS = (
    "lr",
    "optimizer",
    "optimizer_options",
    "schedule",
    "warmup",
    "weight_decay",
    "clip_grad",
    "patience",
    "ema",
    "average",
    "dropout",
)


_LOSSES: Mapping[str, str] = MappingProxyType(
    {
        "ce": "cross-entropy",
        "nll": "cross-entropy",
        "softmax": "cross-entropy",
        "crossentropy": "cross-entropy",
        "categorical_crossentropy": "cross-entropy",
    }
    | dict.fromkeys(("l2", "mean_squared_error"), "mse")
    | dict.fromkeys(("smoothl1", "smooth_l1"), "huber")
    | dict.fromkeys(("bcewithlogits", "binary_crossentropy"), "bce")
)


def _hint(name: str, given: Mapping[str, Any]) -> str:
    """Return what an unknown option may have been meant for."""
    if name in MISPLACED:
        return f" here: {remedies(given)[name]}"
    if name in RENAMED:
        return f" here: it is {RENAMED[name]}"
    if name in _IN_PYTHON:
        return ", which fit() takes in Python only, see docs/own-parts.md"
    if name in AUGMENT_FIELDS:
        return f" here: it is a field of augment, augment={{{name!r}: …}}"
    return did_you_mean(name, [*OPTIONS, *_BESIDE])


def resolve(
    recipe: str | Recipe,
    options: Mapping[str, Any],
    *,
    task: str = "single-label",
    check_optimizer: Callable[[str, Mapping[str, Any]], None] | None = None,
    metrics: Collection[str] = (),
    faults: Sequence[str] = (),
) -> Config:
    """Merge the given options (None means not given) over the recipe's defaults and check all of them.

    Args:
        recipe: A name or a recipe.
        options: By name.
        task: Name of the task.
        check_optimizer: Raises for optimizers that are not installed; None skips the check.
        metrics: Names of the user's own metrics, which ``monitor`` may name.
        faults: What is wrong with the user's own parts, to be raised with the rest.

    Raises:
        OptionError: One error that names every unknown option, with its nearest, every value out of range, and every option
            that has no effect.
    """
    chosen = resolve_recipe(recipe)
    given = {name: value for name, value in options.items() if value is not None}
    faults = [*faults]
    hints = {name: _hint(name, given) for name in given if name not in OPTIONS}
    faults += [f"there is no option {name!r}{hint}" for name, hint in hints.items()]
    values = {name: getattr(chosen, name) for name in DECIDED if name != "epochs"}
    values |= {"solve_head": _solves_head(chosen, given)}
    values |= {name: value for name, value in given.items() if name in Config.model_fields}
    _apply_optimizer_defaults(values, given, chosen)
    values["augment"] = resolve_augment(given.get("augment", chosen.augment), {key: given[key] for key in SWITCHES if key in given}, faults)
    values["judge_augment"] = given.get("augment", chosen.augment) == "auto" and not any(key in given for key in SWITCHES)
    values["mix_few"] = "wise_ft" not in given and chosen == RECIPES["layer-decay"]
    try:
        config = Config(recipe=chosen, **values)
    except ValidationError as error:
        faults += validation_faults(error)
    faults += _without_effect(values, given, chosen) + _beyond_ranges(values, find_task(task), check_optimizer, metrics)
    if faults:
        remedy = "" if all(hints.values()) else f"The options are: {', '.join(OPTIONS)}"
        raise OptionError(fault_list(f"recipe {chosen.name!r} cannot run with these options", faults, remedy))
    return config


def _solves_head(recipe: Recipe, given: Mapping[str, Any]) -> bool:
    """Return the default of `solve_head`: False for a recipe of solved phases only if an option of gradient descent is given."""
    return not (all(phase.solve for phase in recipe.phases) and any(name in given for name in _GRADIENT_OPTIONS))


def _beyond_ranges(
    values: Mapping[str, Any],
    task: Task,
    check_optimizer: Callable[[str, Mapping[str, Any]], None] | None,
    metrics: Collection[str],
) -> list[str]:
    """Return the faults of values whose range depends on the installed packages or on the task."""
    faults = refusals(resolve_monitor, values.get("monitor"), task, metrics) if isinstance(values.get("monitor"), str) else []
    loss = values.get("loss")
    if isinstance(loss, str) and loss not in task.losses:
        known = ", ".join(task.losses) or "none by name"
        here = _LOSSES.get(loss.lower().removesuffix("loss").strip("_"), "")
        near = f" (it is called {here!r} here)" if here in task.losses else did_you_mean(loss, task.losses)
        faults.append(f"loss is {loss!r}{near}; where the task is {task.words}, it is one of: {known}")
    name, options = values["optimizer"], values.get("optimizer_options", {})
    familiar = not options and isinstance(name, str) and name.lower() in TORCH_OPTIMIZERS
    if check_optimizer and isinstance(name, str) and isinstance(options, Mapping) and not familiar:
        faults += refusals(check_optimizer, name, options)
    return faults


def _without_effect(values: Mapping[str, Any], given: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Return one fault for each given option without effect in this run."""
    faults = []
    for kinds in sorted({option.only for option in DECLARED.values() if values["trains"] not in (option.only or TRAINS)}):
        if names := [name for name in given if name in DECLARED and DECLARED[name].only == kinds]:
            remedy = " or ".join(f"recipe={kind!r}" for kind in kinds)
            faults.append(f"{', '.join(names)}: trains={values['trains']!r} has no such option; take {remedy}")
    phases, views = recipe.phases, (given.get("views") or 1) != 1
    if views and values["augment"] is None:
        faults.append("views: they are augmented ones, and nothing is augmented; give augment='light'")
    elif views and not values.get("freeze") and all(phase.frozen in ("none", 0) for phase in phases):
        faults.append("views: only outputs of a frozen prefix are cached, and the recipe freezes nothing; take another, such as 'top'")
    elif views and (values.get("cache") is False or values.get("shard") is True):
        faults.append("views: nothing is cached with cache=False or shard=True")
    if "max_corrupt" in given and values.get("on_corrupt") != "skip":
        faults.append("max_corrupt: it is the share that on_corrupt='skip' may leave out")
    if "epochs" in given and all(phase.epochs or phase.steps for phase in phases):
        faults.append("epochs: every phase of the recipe has a length of its own")
    idle = [name for name, option in DECLARED.items() if option.backbone and name != "trains" and given.get(name)]
    idle += ["trains"] if values["trains"] != "all" else []
    if idle and values.get("freeze") == "all":
        faults.append(f"{', '.join(idle)}: freeze='all' leaves nothing of the backbone to train")
    elif idle and all(phase.frozen == "all" for phase in phases):
        faults.append(f"{', '.join(idle)}: the recipe trains nothing of the backbone; take another, such as 'lp-ft'")
    return faults


def _apply_optimizer_defaults(values: dict[str, Any], given: Mapping[str, Any], recipe: Recipe) -> None:
    """Set the defaults that depend on the optimizer and the schedule, in place; an option or a recipe that decides both keeps its own."""
    defaults = {field.name: field.default for field in fields(Recipe)}

    def is_free(name: str, decider: str) -> bool:
        return name not in given and (values[decider] != getattr(recipe, decider) or getattr(recipe, name) == defaults[name])

    if str(values["optimizer"]).lower() in COUPLED and is_free("weight_decay", "optimizer"):
        values["weight_decay"] = min(values["weight_decay"], 1e-4)  # added to the gradient (He et al. 2016)
    if values["schedule"] == "one-cycle" and is_free("warmup", "schedule"):
        values["warmup"] = 0.3  # as in torch and fastai
