"""Recipes and options of the training of a fusion, checked before anything is read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.inference.predict import embed
from zoo.engine.optim.optimizer import check_optimizer
from zoo.engine.options.own_parts import take_own_parts
from zoo.engine.options.recipe import LONG, RANKED, WIDE, Phase, Recipe
from zoo.engine.options.recipes import LEAST_STEPS, RECIPES, resolve_recipe
from zoo.engine.options.resolve import resolve
from zoo.engine.train.fit import check_kinds
from zoo.errors import OptionError, check_options, did_you_mean, refusals
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.transfer.fusion.mixing import WAYS

MERGED = (*RANKED, "ia3", "ssf", "bitfit")  # kinds of parameters that train in a tower and leave its network as it was
BESIDE = (*WIDE, *LONG)  # those that stay beside the weights
TUNES = ("none", "top", "all", *MERGED)
MIX_EPOCHS, TUNE_EPOCHS = 20, 10
OF_FUSE = ("valid", "seed", "columns", "root", "label_columns", "uncertain")  # arguments of TaskModel.fit of which fuse() has its own
_EMPTY_CELL = "empty the cell of an image that cannot be read, so that it counts as missing"
_ONE_SPLIT = "give the rows of each side: train and valid="
_LENGTH = "texts are read up to the length that their backbone declares"
_MIXED = "it would mix the texts and the numbers of two rows too"
# What to do instead of arguments of TaskModel.fit that say nothing of rows of several parts.
REMEDIES = {name: f"give it to fuse() itself: {name}=, --{name.replace('_', '-')}" for name in OF_FUSE} | {
    "trains": "name what trains of the backbones: tune=, --tune",
    "image_size": "give a backbone that is built for it, such as zoo.get(NAME, img_size=…)",
    "window": "give a backbone whose declaration has it",
    "max_length": _LENGTH,
    "overflow": _LENGTH,
    "on_corrupt": _EMPTY_CELL,
    "max_corrupt": _EMPTY_CELL,
    "valid_split": _ONE_SPLIT,
    "allow_leak": _ONE_SPLIT,
    "mixup": _MIXED,
    "cutmix": _MIXED,
}
# Further ones that a fusion gives itself, or that only tables of one kind of input have.
TAKEN = ("self", "train", "unknown", "budget", "baselines", "objective", "drop_other_classes", *REMEDIES)


def recipe_for(how: str, tune: str, *, augmented: bool = False) -> Recipe:
    """Return the recipe of a fusion.

    What fuses and the head train first, on the outputs of the towers, which are computed once. A concatenation has a solved head and
    nothing to train first.

    Args:
        how: One of ``WAYS``.
        tune: What of the backbones trains afterwards, one of ``TUNES``: nothing, the last group of each, all, or a kind of parameters.
        augmented: Whether the images of the last phase are augmented.
    """
    mixing = how != "concatenate"
    phases = [Phase(name="fusion", frozen=-1, share=MIX_EPOCHS, augment=False, least_steps=LEAST_STEPS)] if mixing else []
    if tune == "top":
        phases.append(Phase(name="top", frozen=-1 - mixing, share=TUNE_EPOCHS, lr=0.1))
    elif tune == "all":
        phases.append(Phase(name="tune", share=TUNE_EPOCHS, lr=0.1))
    elif tune != "none":
        phases.append(replace(RECIPES[tune].phases[-1], share=TUNE_EPOCHS))
    phases[-1] = replace(phases[-1], augment=augmented)
    recipe = Recipe(
        name="fusion",
        phases=tuple(phases),
        lr=3e-3,
        layer_decay=0.75 if tune == "all" else 1.0,
        epochs=MIX_EPOCHS * mixing + TUNE_EPOCHS * (tune != "none"),
        freeze_bn=True,
        augment="none",
        description="What fuses the parts first, on cached features, then the parts themselves.",
    )
    return replace(recipe, weight_decay=RECIPES[tune].weight_decay, trains=RECIPES[tune].trains) if tune in MERGED else recipe


def training_faults(how: str, tune: str, training: Mapping[str, Any], task: str) -> list[str]:
    """Return why a fusion cannot be trained so: names, values out of range, and options that have no effect."""
    faults = []
    if how not in WAYS:
        faults.append(f"how is {how!r}{did_you_mean(str(how), WAYS)}; it is one of {', '.join(WAYS)}")
    if tune in BESIDE:
        remedy = f"fit the backbone alone with recipe={tune!r} and give fuse() the model, or take tune='lora'"
        faults.append(f"tune is {tune!r}, which stays beside the weights of one backbone; {remedy}")
    elif tune not in TUNES:
        faults.append(f"tune is {tune!r}{did_you_mean(str(tune), TUNES)}; it is one of {', '.join(TUNES)}")
    elif tune in MERGED and how != "concatenate":
        remedy = f"take how='concatenate', or fit each backbone alone with recipe={tune!r} and give fuse() the models"
        faults.append(f"tune is {tune!r} with how={how!r}, whose own layers train from random values as a whole; {remedy}")
    known = [name for name in inspect.signature(TaskModel.fit).parameters if name not in TAKEN]
    faults += refusals(lambda: check_options(training, known, "training", remedies=REMEDIES))
    if training and how == "concatenate" and tune == "none":
        faults.append("training: a concatenation of frozen features has a solved head and no training; give tune= or another how=")
    if training.get("resume") and not training.get("out"):
        faults.append("training: resume needs out, the folder of the run")
    faults += refusals(
        lambda: check_kinds(training.get("out"), **{name: training[name] for name in ("resume", "quiet") if name in training})
    )
    return faults or _value_faults(how, tune, training, task)


def _value_faults(how: str, tune: str, training: Mapping[str, Any], task: str) -> list[str]:
    """Return the faults of the values of known options; where nothing trains there are none."""
    if how == "concatenate" and tune == "none":
        return []
    given = {name: value for name, value in training.items() if name not in ("recipe", "out", "resume", "quiet")}
    faults: list[str] = []
    own = take_own_parts(given, find_task(task), faults)
    try:
        recipe = resolve_recipe(training.get("recipe") or recipe_for(how, tune, augmented=True))
        if training.get("recipe") and recipe.trains != "all":
            return [*faults, f"training: recipe {recipe.name!r} trains {recipe.trains}; give tune={recipe.name!r} in its place"]
        metrics = training.get("metrics")
        names = [str(name) for name in (metrics if isinstance(metrics, Mapping) else own.metrics)]
        resolve(recipe, given, task=task, check_optimizer=check_optimizer, metrics=names, faults=faults)
    except OptionError as error:
        return [f"training: {error}"]
    return []


def pass_faults(options: Mapping[str, Any]) -> list[str]:
    """Return the faults of the options of the passes through the backbones."""
    known = [*inspect.signature(InferenceOptions).parameters]
    if faults := refusals(lambda: check_options(options, known, "fuse()", beside=inspect.signature(embed).parameters)):
        return faults
    return refusals(lambda: InferenceOptions(**options))
