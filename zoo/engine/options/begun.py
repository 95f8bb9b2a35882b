"""Configurations of runs that have begun: what a run is resumed with, and how two configurations differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.engine.options.config import DECLARED, Config
from zoo.engine.options.recipe import DECIDED, Phase
from zoo.engine.options.recipes import default_recipe, earlier_default
from zoo.tasks.find import find_task
from zoo.util.differences import record_differences

# Options of objectives that had another name in earlier versions, by the name of the objective.
_RENAMED = {"mae": {"hidden_share": "mask_ratio"}, "mlm": {"share": "mask_ratio"}, "simclr": {"projected": "projection_dim"}}


def began_validated(folder: str | Path | None) -> bool:
    """Return whether the run in a folder has validation data in its record, so that it goes on with them.

    Earlier versions held some out of the very few samples from which none are held out now.
    """
    try:
        return folder is not None and bool(json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))["data"]["valid"])
    except (OSError, ValueError, KeyError, TypeError):  # none has begun, or ``checkpoint_to_resume`` refuses it
        return False


def as_begun(config: Config, theirs: Mapping[str, Any], task: str = "single-label") -> Config:
    """Return the configuration with the recipe, phases, sizes and monitor that a run was begun with, so that it can go on.

    Recipes change with versions, and the monitor with the data, where none is named.

    Args:
        config: The configuration of today.
        theirs: That of the run, as ``to_dict`` of its version gave it.
        task: Name of the task.
    """
    found = _with_recipe(config, theirs, task)
    if theirs["recipe"]["augment"] == "light" and found.recipe.augment == "auto":  # versions that augmented unasked
        found = found.model_copy(update={"recipe": replace(found.recipe, augment="light"), "judge_augment": False})
    if "mix_few" not in theirs:  # versions that took the tuned values of few samples as they were
        found = found.model_copy(update={"mix_few": False})
    return biases_as_begun(found, theirs)


def biases_as_begun(config: Config, theirs: Mapping[str, Any]) -> Config:
    """Return the configuration without ``refit_bias`` if nobody gave it and a version that left the biases as tuned began the run."""
    return config.model_copy(update={"refit_bias": False}) if "refit_bias" not in theirs and config.refit_bias is None else config


def _with_recipe(config: Config, theirs: Mapping[str, Any], task: str) -> Config:
    """Return the configuration with the monitor, phases and sizes of the run."""
    recorded = theirs["recipe"]
    if config.monitor is None and theirs.get("monitor") in find_task(task).monitors:
        config = config.model_copy(update={"monitor": theirs["monitor"]})
    earlier = earlier_default(task)
    if earlier and (recorded["name"], recorded["lr"]) == (earlier.name, earlier.lr) and config.recipe == default_recipe(task):
        decided = [name for name in DECIDED if name in Config.model_fields and name != "epochs"]
        unsaid = [name for name in decided if getattr(config, name) == getattr(config.recipe, name)]
        config = config.model_copy(update={"recipe": earlier, **{name: getattr(earlier, name) for name in unsaid}})
    if recorded["name"] != config.recipe.name or all("least_steps" in phase for phase in recorded["phases"]):
        return config
    phases = tuple(Phase(**phase) for phase in recorded["phases"])  # whose fields of today are off by default
    recipe = replace(config.recipe, phases=phases, batch_size=recorded["batch_size"])
    if "solve_head" in theirs:
        return config.model_copy(update={"recipe": recipe})
    return config.model_copy(update={"recipe": recipe, "solve_head": False, "epochs": config.epochs or recipe.epochs})


def objective_as_begun(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return an objective as the record of a run describes it, with the names that its options have today."""
    names = _RENAMED.get(described["name"], {})
    return {names.get(option, option): value for option, value in described.items()}


def option_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the differences of two configurations that change the result; workers and device do not."""
    from zoo.data.splits.patients import OFF

    free = {name for name, option in DECLARED.items() if option.free}
    free.add("mix_few")  # not an option; what follows from it is the ``wise_ft`` of a run
    # An option that the other run did not have yet counts as its default.
    before = {name: theirs.get(name, _json_default(name)) for name in ours}
    before |= {"solve_head": theirs.get("solve_head", False)}  # versions without it trained every head
    if "group" not in (before.get("columns") or {}) and (ours.get("columns") or {}).get("group") == OFF:
        # A run of a version that did not read the headers of DICOM files goes on so; its data are compared by what was divided.
        ours = {**ours, "columns": {role: name for role, name in ours["columns"].items() if role != "group"}}
    if "refit_bias" not in theirs:  # versions that left the biases as tuned; None is decided by the number of samples, run by run
        before["refit_bias"] = None if ours.get("refit_bias") is None else False
    if isinstance(before.get("recipe"), dict):  # phases of earlier versions lack fields, which are off
        phases = before["recipe"]["phases"]
        before["recipe"] = before["recipe"] | {"phases": type(phases)({"solve": False, "least_steps": 0, **phase} for phase in phases)}
    names = [name for name in ours if name not in free and ours[name] != before[name]]
    return [line for name in names for line in record_differences(name, before[name], ours[name])]


def _json_default(name: str) -> Any:
    """Return the default of an option in the form of a record, where a tuple is a list."""
    field = Config.model_fields.get(name)
    default = field.get_default(call_default_factory=True) if field is not None else None
    return list(default) if isinstance(default, tuple) else default
