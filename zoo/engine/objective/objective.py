"""The base of all objectives: sources, modules, loss and validation of a run."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch
from zoo.data.table import Table
from zoo.data.texts.token_ids import fit_lengths
from zoo.engine.cache.forward import Forward
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.inference.batched_inference import Outputs
from zoo.engine.loading.stream import Source
from zoo.engine.options.config import Config
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.solved.solved_head import SolvedHead
from zoo.errors import OptionError, SavedModelError, did_you_mean, fault_list
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task

log = logging.getLogger("zoo")
Infer = Callable[[str], Outputs]
"""From the name of a validation table to the model's logits for all its samples."""


class Objective:
    """The sources, modules, loss and validation of a run; the recipe says how the loss is minimised.

    The engine gives every objective the same checkpoints, exact resume, ranks, out-of-memory handling, stored activations,
    averages, plan and progress. A subclass sets the attributes and writes ``loss``; the rest has defaults.

    Attributes:
        model: The model that is fine-tuned.
        module: The model, or a module that holds it and further ones (a projector, a momentum copy). All of it is saved and
            restored, and what requires gradients trains; the further modules at the head's learning rate.
        sources: Training data by name. The first defines the epoch; the others cycle, with batches of the same size.
        valid: Validation data by name; empty for no validation.
        frozen: Modules from inputs to one row of outputs per sample that never train, such as a teacher. Their outputs are
            ``Batch.frozen``: computed once per sample where its views are fixed. One with an attribute ``inputs``, such as a ``TaskModel``,
            gets the same views of the samples as that declares: another size and normalisation, or another tokenizer. The outputs
            of one with an attribute ``width``, the values of a row, are stored only where ``cache_gb`` allows for it.
        monitor: The metric of ``validate`` that chooses the epoch.
        lower: Whether its lowest value is the best; None for metrics of the task, of which that is known.
        pooled: Whether pooled features may replace inputs while the whole backbone is frozen.
        cache_obstacle: Why stored activations must not replace inputs, for the log; empty if they may. For a loss that gives inputs to
            modules other than the model; ``frozen`` is the better way to do so.
        separable: Whether the loss is a sum over samples. If not, a batch is never cut into micro-batches, and on several ranks
            ``forward.gather`` gives the rows of all.
        by_length: Whether texts of nearly equal length share batches, which saves padding. Not for a loss that compares the samples of a
            batch: of few texts the same ones would meet in every epoch.
        total_steps: Optimizer steps of the whole run, for schedules; set by the engine before the first step.
        ranks: The processes of the run, set by the engine. What all of them must call together is called in ``validate`` and ``state_dict``
            alone, which run on each.
    """

    name = "objective"
    total_steps = 0
    ranks = Ranks()  # one process
    separable = True
    by_length = True
    pooled = True
    cache_obstacle = ""
    has_own_monitor = False  # whether the monitor is neither the task's nor that of the labels

    def __init__(
        self,
        model: TaskModel,
        sources: Mapping[str, Source],
        valid: Mapping[str, Table],
        *,
        monitor: str = "loss",
        lower: bool | None = None,
    ) -> None:
        self.model, self.sources, self.valid, self.monitor = model, dict(sources), dict(valid), monitor
        self.lower = lower
        self.module: nn.Module = model
        self.frozen: dict[str, nn.Module] = {}

    def weight(self, batch: Mapping[str, Batch]) -> Tensor | float:
        """Return the divisor of the loss, to be summed over all batches of the step and all ranks.

        By default the number of samples of the first source.
        """
        return float(len(batch[next(iter(self.sources))].indices))

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the sum of the losses of a batch, to be divided by ``weight``.

        Args:
            forward: Passes through the model.
            batch: The samples of each source.
        """
        raise TypeError(f"{type(self).__name__} has no loss")

    def faults(self, config: Config) -> list[str]:
        """Return why this objective cannot train with a configuration, each with its remedy; see ``make_objective``."""
        return []

    def can_solve(self, config: Config) -> bool:
        """Return whether ``solve`` gives the optimum of the head on pooled features."""
        return False

    def solve(self, features: Tensor, table: Table, *, device: torch.device, seed: int, poll: Callable[[], None]) -> SolvedHead:
        """Return the optimum of the head, with the sum of the losses that ``loss`` takes.

        Args:
            features: Pooled features of the first source, ``(samples, dim)``, for words those of each word, on the CPU.
            table: The samples or words.
            device: Where the model is.
            seed: Seed of whatever is drawn.
            poll: Called between solver calls; raises to interrupt.

        Raises:
            TrainingError: If there is none.
        """
        raise TypeError(f"{type(self).__name__} has no solve()")

    def suits_augmentation(
        self, features: Tensor, views_of: Callable[[int], Sequence[Tensor]], table: Table, *, context: RunContext
    ) -> bool:
        """Return False if augmented views of the samples harm the solved head; see ``Supervised``."""
        return True

    def penalty(self, batch: Mapping[str, Batch]) -> Tensor | None:
        """Return a further mean loss after the forward of a batch, weighted by its share of the step; None for none."""
        return None

    def soften(self, targets: Tensor) -> Tensor:
        """Return targets of the first source that mixup can mix."""
        return targets

    def validate(self, infer: Infer) -> dict[str, float]:
        """Return the metrics of the model as it is."""
        return {}

    @property
    def rechooses_thresholds(self) -> bool:
        """Whether thresholds were chosen for the head alone, so that they are chosen again once more has trained."""
        return False

    def choose_thresholds(self, outputs: Any) -> None:
        """Choose thresholds on the logits of the training samples."""

    def before_step(self) -> None:
        """Discard what ``loss`` has noted in an attempt at the step that failed; called before each attempt."""

    def after_step(self) -> None:
        """Update own state after an optimizer step, such as a momentum copy; nowhere else, as a failed step is retried."""

    def active(self) -> AbstractContextManager[Any]:
        """Return a context that is open during the run, and closed also after an error."""
        return nullcontext()

    def save_beside(self) -> None:
        """Save further results when the run's own model is saved, on the first process; all processes raise what it raises."""

    def phase(self) -> AbstractContextManager[Any]:
        """Return a context that is open during the steps of an epoch; the frozen prefix is set already."""
        return nullcontext()

    def parts(self) -> dict[str, Any]:
        """Return further objects with ``state_dict`` and ``load_state_dict`` for the checkpoint."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return own state other than the module's: tensors and plain data."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over what ``state_dict`` returned, in place."""


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


def _made(make: Callable[[Any], Objective] | None, supervised: Objective, config: Config) -> Objective:
    if make is not None and not callable(make):
        raise OptionError(
            f"objective is {type(make).__name__}; give a function from the run's Supervised to an Objective, such as its class"
        )
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


def checked_metrics(metrics: Any, objective: Objective) -> dict[str, float]:
    """Return what ``validate`` of an objective returned, as plain numbers.

    Raises:
        OptionError: If it is not a dict of numbers, or lacks a monitor that only ``validate`` can give; a metric of the task may be
            undefined on these data.
    """
    name = objective.name
    try:
        found = {str(key): float(value) for key, value in metrics.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise OptionError(f"validate() of {name!r} returned {metrics!r}; it must return a dict of numbers") from error
    if objective.valid and objective.has_own_monitor and objective.monitor not in found:
        near = did_you_mean(objective.monitor, list(found))
        raise OptionError(f"validate() of {name!r} returned {', '.join(found) or 'nothing'}, and monitor is {objective.monitor!r}{near}")
    return found


def run_cache_obstacle(objective: Objective, config: Config) -> str:
    """Return why activations of the frozen prefix must not be stored; empty where they may be."""
    if config.compile:
        return "compiled code is not entered in the middle"
    return objective.cache_obstacle or ("" if reads_stored(objective) else "its views are drawn anew in each epoch")


def reads_stored(objective: Objective) -> bool:
    """Return whether the steps of an objective can read what is stored of the model: no source has views of its own."""
    return not any(source.own_views for source in objective.sources.values())


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
    mixed = [name for name in ("mixup", "cutmix") if (config.augment or {}).get(name)]
    several = objective.frozen or any(source.number_of_views > 1 for source in objective.sources.values())
    if mixed and (several or kind.soften is Objective.soften):
        reason = "its frozen modules and further views are not mixed" if several else "it has no soften(), which makes targets mixable"
        faults.append(f"{', '.join(mixed)}: {reason}")
    return faults


@dataclass(frozen=True)
class Identity:
    """Name and sources of an objective, stored in checkpoints so that a run is resumed with the same."""

    objective: Objective

    def state_dict(self) -> dict[str, Any]:
        """Return the name of the objective and the sizes of its sources."""
        return {"name": self.objective.name, "samples": {name: len(source.table) for name, source in self.objective.sources.items()}}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Check that a checkpoint is of the same objective; those of zoo 0.1.0 have none.

        Raises:
            SavedModelError: Naming both.
        """
        own = self.state_dict()
        if state and dict(state) != own:
            remedy = "give the same as before, or start anew (out, --out)"
            raise SavedModelError(
                f"the run minimised {state.get('name')!r} with {state.get('samples')} samples, and is given {own}; {remedy}"
            )
