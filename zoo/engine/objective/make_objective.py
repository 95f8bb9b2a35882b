"""Make the objective of a run, and refuse one that could not train."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from zoo.data.table import Table
from zoo.data.texts.augment import TextAugment
from zoo.data.texts.token_ids import fit_lengths
from zoo.declare import Text
from zoo.engine.loading.stream import Source
from zoo.engine.objective.objective import Objective
from zoo.engine.options.config import Config
from zoo.errors import OptionError, fault_list
from zoo.tasks.find import find_task

log = logging.getLogger("zoo")


def make_objective(make: Callable[[Any], Objective] | None, supervised: Objective, config: Config) -> Objective:
    """Return the objective of a run, checked; its texts have at most ``max_length`` tokens.

    Args:
        make: The argument of ``fit(objective=…)``, a function from the run's ``Supervised`` to its objective; None uses the former.
        supervised: The objective of labels for the same model and data.
        config: The resolved configuration.

    Raises:
        OptionError: If ``make`` returns something else, or an objective that this configuration cannot train; all faults at once.
        DataError: If texts are longer and ``overflow`` is ``error``.
    """
    objective, inputs = _made(make, supervised, config), supervised.model.inputs
    objective.sources = {name: replace(source, table=fit_lengths(source.table, inputs)) for name, source in objective.sources.items()}
    objective.valid = {name: fit_lengths(table, inputs) for name, table in objective.valid.items()}
    return objective


def check_makes_objective(make: Any) -> None:
    """Check that the argument of ``fit(objective=…)`` can make an objective, before anything is read.

    Raises:
        OptionError: For a name, the class of a method, or what cannot be called.
    """
    if isinstance(make, str):
        raise OptionError(
            f"objective is the name {make!r}, which zoo train --objective takes; in Python give an object, such as zoo.transfer.Distill(…)"
        )
    if isinstance(make, type) and hasattr(make, "refuse"):
        raise OptionError(f"objective is the class {make.__name__}; give an object of it, such as {make.__name__}(…)")
    if make is not None and not callable(make):
        raise OptionError(
            f"objective is {type(make).__name__}; give a function from the run's Supervised to an Objective, such as its class"
        )


def _made(make: Callable[[Any], Objective] | None, supervised: Objective, config: Config) -> Objective:
    objective = supervised if make is None else make(supervised)
    if objective is supervised:
        return supervised
    if not isinstance(objective, Objective):
        raise OptionError(f"objective returned {type(objective).__name__}; it must return an Objective")
    if faults := _faults_of(objective) or [*_useless_with(objective, config), *objective.faults(config)]:
        raise OptionError(fault_list(f"the objective {objective.name!r} cannot train like this:", faults))
    task = find_task(objective.model.task)
    objective.has_own_monitor = objective.monitor not in {supervised.monitor, *task.monitors}
    if objective.lower is None:
        known = task.lower_is_better
        objective.lower = bool(supervised.lower) if objective.monitor == supervised.monitor else objective.monitor in known
    views = [name for name, source in objective.sources.items() if source.number_of_views > 1 and not source.own_views]
    if views and (config.augment is None or not all(phase.augment for phase in config.recipe.phases)):
        log.warning("the views of %s are equal in phases without augmentation", ", ".join(views))
    return objective


def _faults_of(objective: Objective) -> list[str]:
    """Return the faults of an objective in any configuration."""
    if not all(hasattr(objective, name) for name in ("model", "module", "sources", "valid", "monitor")):
        return ["its __init__ does not call super().__init__(base.model, base.sources, base.valid, monitor=base.monitor)"]
    if odd := [name for name, source in objective.sources.items() if not isinstance(source, Source) or not isinstance(source.table, Table)]:
        return [f"its sources {', '.join(odd)} are no zoo.Source of a table; zoo.Source(zoo.open_data(data, labelled=False))"]
    if not isinstance(objective.frozen, Mapping):
        return [f"its frozen is {type(objective.frozen).__name__}; give a mapping from a name to a module, such as {{'teacher': module}}"]
    if odd := [name for name, module in objective.frozen.items() if not isinstance(module, nn.Module)]:
        return [f"its frozen {', '.join(odd)} are no torch.nn.Module"]
    held = any(part is objective.model for part in objective.module.modules())
    return [
        *([] if objective.sources else ["it has no source; give at least one zoo.Source"]),
        *([] if held else ["its module does not hold the model: module = nn.ModuleDict({'model': base.model, …})"]),
        *(_faults_of_modules(objective) if held else ()),
        *_faults_of_views(objective),
        *_misspelt(objective),
    ]


def _faults_of_modules(objective: Objective) -> list[str]:
    """Return a fault for each module that would neither train nor be saved, and for each frozen one that would train."""
    trained = {id(parameter) for parameter in objective.module.parameters()}
    frozen = {id(parameter) for module in objective.frozen.values() for parameter in module.parameters()}
    faults = []
    for name, value in vars(objective).items():
        own = value.parameters() if isinstance(value, nn.Module) else ()
        if any(parameter.requires_grad and id(parameter) not in trained | frozen for parameter in own):
            faults.append(
                f"its {name} has parameters that would neither train nor be saved: self.module = nn.ModuleDict({{'model': base.model, "
                f"{name!r}: self.{name}}}), or self.frozen = {{{name!r}: self.{name}}}, or self.{name}.requires_grad_(False)"
            )
    for name, module in objective.frozen.items():
        if any(id(parameter) in trained for parameter in module.parameters()):
            faults.append(f"its frozen {name!r} shares parameters with what trains; give a copy.deepcopy of it")
    return faults


def _faults_of_views(objective: Objective) -> list[str]:
    """Return a fault for each source whose own views are of another kind of input than the model reads."""
    texts = isinstance(objective.model.inputs, Text)
    if texts:
        reads = "texts; give zoo.View(TextAugment(…)) of zoo.data.texts.augment, without size"
    else:
        reads = "no texts; give zoo.View(Augment(…)) of zoo.data.images.augment"
    return [
        f"the views of its source {name!r} have {type(view.augment).__name__}, and the model reads {reads}"
        for name, source in objective.sources.items()
        for view in source.own_views
        if isinstance(view.augment, TextAugment) != texts or (texts and view.size is not None)
    ]


def _misspelt(objective: Objective) -> list[str]:
    """Return a fault for each attribute whose name is nearly one that the engine reads."""
    known = [name for name in (*vars(Objective), "model", "module", "sources", "valid", "monitor", "lower", "frozen") if name[0] != "_"]
    own = {name for kind in type(objective).__mro__ if issubclass(kind, Objective) and kind is not Objective for name in vars(kind)}
    unknown = [name for name in sorted({*own, *vars(objective)} - {*known}) if name[0] != "_"]
    near = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.85) for name in unknown}
    return [f"its {name} has no meaning; did you mean {found[0]!r}?" for name, found in near.items() if found and name != f"{found[0]}s"]


def _useless_with(objective: Objective, config: Config) -> list[str]:
    """Return the options of a configuration that an objective would ignore or misuse."""
    kind, faults = type(objective), []
    penalties = [name for name in ("l2_sp", "delta", "bss") if getattr(config, name)]
    if penalties and kind.penalty is Objective.penalty:
        faults.append(f"{', '.join(penalties)}: it has no penalty(); leave them out, or return base.penalty(batch) there")
    if config.refit_bias and kind.refit_bias is Objective.refit_bias:
        faults.append("refit_bias: it has no refit_bias(); leave it out, or call base.refit_bias(logits, table) there")
    mixed = [name for name in ("mixup", "cutmix") if (config.augment or {}).get(name)]
    several = objective.frozen or any(source.number_of_views > 1 for source in objective.sources.values())
    if mixed and (several or kind.soften is Objective.soften):
        reason = "its frozen modules and further views are not mixed" if several else "it has no soften(), which makes targets mixable"
        faults.append(f"{', '.join(mixed)}: {reason}")
    return faults
