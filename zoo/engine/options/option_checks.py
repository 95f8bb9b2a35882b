"""Checks that the given options apply to the model, its task and its data, before anything expensive happens."""

from __future__ import annotations

import logging

from zoo.engine.options.augment_options import AUGMENT_FIELDS, AUGMENTS, ON_BATCHES, resolve_augment
from zoo.engine.options.config import DECLARED, SWITCHES, Config, is_given
from zoo.engine.options.epochs import has_solvable_head
from zoo.engine.options.model_selection import DIVIDING, decided_by_metric
from zoo.engine.options.own_parts import OwnParts
from zoo.engine.options.recipe import phase_epochs
from zoo.errors import OptionError, count, fault_list
from zoo.models.heads import gives_features, has_biases
from zoo.models.own_names import OWN_HEAD, is_fusion, is_own
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tasks.labels.encode import useless_uncertain
from zoo.tasks.several import SeveralTasks
from zoo.tasks.task import Task

log = logging.getLogger("zoo")


def check_fits(model: TaskModel, config: Config, *, validated: bool = True, advises: bool = True) -> None:
    """Check that every given option applies to the model and its task.

    Args:
        model: The model.
        config: The resolved configuration.
        validated: Whether there will be validation data.
        advises: Whether settings that are valid but rarely intended are told.

    Raises:
        OptionError: If options for images are given for texts, options for classes for a regression, and the like; all at once.
    """
    if advises:
        _warn(model, config)
    kind = model.spec.modality
    unread = [name for name, option in DECLARED.items() if option.reads and kind not in option.reads and is_given(config, name)]
    unread += _unused_augmentation(config, kind)
    useless = [
        (kind != "image", unread, f"meant for images, and {model.spec.name!r} reads {kind}s"),
        *((True, names, why) for names, why in _useless(find_task(model.task), config)),
        (
            not model.pretrained,
            ["freeze_bn"] if config.freeze_bn and not config.recipe.freeze_bn else [],
            f"it keeps pretrained statistics, and {model.spec.name!r} starts from random values",
        ),
        (bool(config.refit_bias), ["refit_bias"] if refit_obstacle(model, config) else [], refit_obstacle(model, config)),
        (not validated, decided_by_metric(config), "decided by a metric, and there are no validation data"),
        (
            not validated,
            [name for name in DIVIDING if is_given(config, name)],
            "meant for a division of the data, and all of them train, without validation (valid=False)",
        ),
    ]
    faults = [f"{', '.join(names)}: {why}" for given, names, why in useless if given and names]
    faults += _exclusions(config)
    if faults:
        raise OptionError(fault_list("these options do not suit the run:", faults, "Leave out what is named"))


def refit_obstacle(model: TaskModel, config: Config) -> str:
    """Return why the biases of the head cannot be fitted anew after training (``refit_bias``); empty if they can."""
    if not has_biases(model.head) or not find_task(model.task).exclusive:
        return f"for a linear head with biases and one class per sample, and the head is {model.head_name!r} of a {model.task} task"
    if model.spec.modality == "text" or config.augment is None or not any(phase.augment for phase in config.recipe.phases):
        return "it follows on training with augmented images, and nothing is augmented"
    return ""


def check_own_parts(model: TaskModel, config: Config, own: OwnParts) -> None:
    """Check that no option lacks an effect because of the user's own parts.

    Raises:
        OptionError: Naming all of them.
    """
    beside = [name for name in ("class_weights", "label_smoothing") if getattr(config, name)]
    faults = [f"{', '.join(beside)}: a loss of your own decides them; put them into it"] if own.loss is not None and beside else []
    if own.augment is not None and model.spec.modality != "image":
        faults.append(f"augment: a function is for images, and {model.spec.name!r} reads {model.spec.modality}s")
    ignored = [name for name in ("rand_augment", "erase") if (config.augment or {}).get(name)]
    if own.augment is not None and ignored:
        faults.append(f"{', '.join(ignored)}: an augmentation of your own decides them; put them into it")
    task = find_task(model.task)
    if own.loss is not None and (task.per_token or isinstance(task, SeveralTasks)):
        faults.append(f"loss: a function gives one value per sample, and the task is {find_task(model.task).words}; take one by name")
    if faults:
        raise OptionError(fault_list("these options do not suit the run:", faults, "Leave out what is named"))


def check_ready_made(config: Config) -> None:
    """Check that no augmentation is given for float tensors that are the network's inputs as they are.

    Raises:
        OptionError: Naming the options.
    """
    given, usual = config.augment or {}, resolve_augment(config.recipe.augment, {}, []) or {}
    idle = [name for name in AUGMENT_FIELDS if name not in ON_BATCHES and given.get(name) != usual.get(name)]
    if given and idle:
        raise OptionError(
            f"augment ({', '.join(idle)}): the data are float tensors outside [0, 1], which are not augmented; "
            "give images or values in [0, 1], or augment in the dataset"
        )


def _useless(task: Task, config: Config) -> list[tuple[list[str], str]]:
    """Return the given options that do not apply to the task, and why."""
    reasons: dict[str, list[str]] = {}
    for name, why in task.useless.items():
        if getattr(config, name):
            reasons.setdefault(why, []).append(name)
    if config.uncertain and (why := useless_uncertain(task)):
        reasons.setdefault(why, []).append("uncertain")
    if config.label_columns and task.per_token:
        reasons.setdefault(f"label columns hold one value per sample, and {task.name!r} labels words", []).append("label_columns")
    return [(names, why) for why, names in reasons.items()]


def _warn(model: TaskModel, config: Config) -> None:
    """Log a warning for settings that are valid, but rarely intended."""
    phases = config.recipe.phases
    needed = ["backbone=zoo.wrap(…)"] if is_own(model.spec.name) and not is_fusion(model.spec.name) else []
    needed += ["head=module"] if model.head_name == OWN_HEAD and not gives_features(model.head) else []
    if needed:
        log.warning("the run saves values and not the code of your own parts: open it with zoo.load(folder, %s)", ", ".join(needed))
    if not model.pretrained and phases[0].frozen == "all":
        line = "%s starts from random values, and the recipe %r first trains a head on its features; recipe='full' suits it better"
        log.warning(line, model.spec.name, config.recipe.name)
    solved = [phase for phase in phases if phase.solve and has_solvable_head(model, config)]
    lengths = phase_epochs(config.recipe, config.epochs, solved)
    left_out = [phase.name for phase, epochs in zip(phases, lengths, strict=True) if not epochs]
    if left_out:
        line = "epochs is %d and the recipe %r has %d phases; left out: %s"
        log.warning(line, config.epochs or config.recipe.epochs, config.recipe.name, len(phases), ", ".join(left_out))
    for phase, epochs in zip(phases, lengths, strict=True):
        if phase.frozen == "each" and 0 < epochs < len(model.groups):
            line = "phase %r has %s for %d groups, so it unfreezes several at a time; give it more epochs"
            log.warning(line, phase.name, count(epochs, "epoch"), len(model.groups))
    if config.wise_ft < 1 and len(phases) - len(left_out) == 1:
        line = "wise_ft mixes in the values from before the last phase, and there is one phase only: where the head is new, they are random"
        log.warning(line)


def _exclusions(config: Config) -> list[str]:
    """Return one fault for each group of options that exclude another one."""
    excluded: dict[tuple[str, str], list[str]] = {}
    for name, option in {**DECLARED, **SWITCHES}.items():
        for other, why in option.excludes.items():
            if is_given(config, name) and _holds(config, other):
                excluded.setdefault((other.partition("=")[2] or other, why), []).append(name)
    return [f"{', '.join(names)} with {other}: {why}" for (other, why), names in excluded.items()]


def _holds(config: Config, condition: str) -> bool:
    """Return whether an option is given, or has the value that ``name=value`` names."""
    name, sign, value = condition.partition("=")
    return str(getattr(config, name)) == value if sign else is_given(config, name)


def _unused_augmentation(config: Config, kind: str) -> list[str]:
    """Return the given augmentation options that have no effect on inputs of this kind."""
    augment = config.augment or {}
    mixes = [name for name in SWITCHES if kind != "image" and augment.get(name)]
    named = [fields for name, fields in AUGMENTS.items() if name != config.recipe.augment]
    usual = resolve_augment(config.recipe.augment, {}, []) or {}
    other = augment in named or any(augment.get(name) != usual.get(name) for name in augment if name not in SWITCHES)
    return ["augment"] if kind == "text" and augment and other else mixes
