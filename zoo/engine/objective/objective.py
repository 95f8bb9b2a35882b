"""The base of all objectives: sources, modules, loss and validation of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch
from zoo.data.table import Table
from zoo.engine.cache.forward import Forward
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.inference.batched_inference import Outputs
from zoo.engine.loading.stream import Source
from zoo.engine.options.config import Config
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.solved.solved_head import SolvedHead
from zoo.errors import OptionError, SavedModelError, did_you_mean
from zoo.models.task_model import TaskModel

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

    def refit_bias(self, logits: Tensor, table: Table) -> None:
        """Change the biases of the head in place to suit logits; called at the end of a run with ``refit_bias``.

        Args:
            logits: Of the samples of the first source as they are, ``(samples, outputs)``, on the CPU.
            table: These samples.
        """

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
