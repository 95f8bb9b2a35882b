"""Several tasks, balanced by weights, by uncertainty or by gradient surgery, and by how often each is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch
from zoo.engine.cache.forward import Forward
from zoo.engine.objective.objective import Infer, Objective
from zoo.engine.objective.supervised import Supervised
from zoo.engine.options.config import Config
from zoo.errors import LISTED, OptionError, checked_fields, did_you_mean, examples, fault_message
from zoo.tasks.several import SeveralTasks
from zoo.transfer.beside_labels import BesideLabels
from zoo.transfer.method import Method
from zoo.transfer.task_gradients import (
    SURGERY,
    Weighting,
    combined,
    find_weighting,
    flat,
    gradients_of,
    gramian,
    step_seed,
    task_weights,
    with_gradients,
)
from zoo.util.numbers import is_finite

WEIGHTINGS = ("fixed", "uncertainty", *SURGERY)
SAMPLINGS = ("size", "temperature", "round-robin")


@checked_fields
@dataclass(frozen=True)
class MultiTask(Method):
    """How several tasks share the backbone.

    Attributes:
        weighting: ``fixed`` adds the losses with ``task_weights``; ``uncertainty`` learns a variance per task (Kendall et al. 2018);
            ``pcgrad``, ``mgda``, ``imtl-g`` and ``aligned-mtl`` combine the gradients of the shared parameters by torchjd.
        task_weights: Weights of the losses by task, above 0; 1 for those that are not named.
        sampling: ``size`` takes every sample once per epoch; ``temperature`` draws a task with n labels as often as
            ``n ** (1 / temperature)`` says; ``round-robin`` gives each batch to one task, the tasks in turn.
        temperature: Of ``sampling="temperature"``, 1 or more; infinity draws all tasks equally often.
    """

    name: ClassVar[str] = "multi-task"
    weighting: str = "fixed"
    task_weights: Mapping[str, float] | None = None
    sampling: str = "size"
    temperature: float = 2.0

    def __post_init__(self) -> None:
        faults = _not_among("weighting", self.weighting, WEIGHTINGS) + _not_among("sampling", self.sampling, SAMPLINGS)
        given = self.task_weights or {}
        if not isinstance(given, Mapping):
            faults.append(f"task_weights is {given!r}; give a weight by task, such as {{'kind': 2}}")
        else:
            odd = {name: value for name, value in given.items() if not (is_finite(value) and value > 0)}
            faults += [f"the weight of task {name!r} is {value!r}; it must be a number above 0" for name, value in odd.items()]
        if self.task_weights and self.weighting == "uncertainty":
            faults.append("task_weights: with weighting='uncertainty' the weights are learned; leave them out")
        if isinstance(self.temperature, bool) or not isinstance(self.temperature, int | float) or not self.temperature >= 1:
            faults.append(f"temperature is {self.temperature!r}; it must be a number of at least 1")
        if self.sampling != "temperature" and self.temperature != type(self).temperature:
            faults.append(f"temperature: it is that of sampling='temperature', and sampling is {self.sampling!r}")
        if self.sampling == "round-robin" and self.weighting in SURGERY:
            faults.append(f"weighting={self.weighting!r} with sampling='round-robin': a batch has one task, and no gradients to combine")
        if faults:
            raise OptionError(fault_message("MultiTask cannot work with these options:", faults))
        if self.weighting in SURGERY:
            find_weighting(self.weighting)  # raises where torchjd is missing

    def __call__(self, base: Supervised) -> Objective:
        """Return the objective of a run of several tasks.

        Raises:
            OptionError: If the model has one task, or a weight is that of none.
        """
        if not isinstance(base.task, SeveralTasks):
            raise OptionError(f"the objective 'multi-task' is for several tasks, of adapt_tasks(); the task is {base.task.words}")
        unknown = [f"{name!r}{did_you_mean(name, base.task.names)}" for name in self.task_weights or {} if name not in base.task.names]
        if unknown:
            raise OptionError(f"task_weights names {', '.join(unknown)}; the tasks are: {examples(base.task.names, LISTED)}")
        kind = {"fixed": Balanced, "uncertainty": Uncertain}.get(self.weighting, Surgical)
        return kind(base, self)


def _not_among(name: str, value: Any, known: Sequence[str]) -> list[str]:
    return [] if value in known else [f"{name} is {value!r}{did_you_mean(str(value), known)}; it is one of: {', '.join(known)}"]


class Balanced(BesideLabels):
    """The sum of the losses of several tasks, each with a fixed weight.

    Args:
        base: The objective of the labels.
        method: The options.
    """

    name = "multi-task"

    def __init__(self, base: Supervised, method: MultiTask) -> None:
        assert isinstance(base.task, SeveralTasks), "there are several tasks"
        temperature = float(method.temperature) if method.sampling == "temperature" else 1.0
        source = replace(base.sources["train"], temperature=temperature, in_turn=method.sampling == "round-robin")
        super().__init__(base, {"train": source})
        self.members = base.task.members
        self.factors = [float((method.task_weights or {}).get(member.name, 1.0)) for member in self.members]

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the weighted sum."""
        return torch.stack(self._losses(forward(batch["train"].x), batch["train"].y)).sum()

    def _losses(self, logits: Tensor, targets: Tensor) -> list[Tensor]:
        """Return the sum of the losses of each task, with its fixed weight."""
        return [factor * loss for factor, loss in zip(self.factors, self.base.task_losses(logits, targets), strict=True)]

    def can_solve(self, config: Config) -> bool:
        """Return whether the heads can be solved; on fixed features the weights of the tasks change none of them."""
        return self.base.can_solve(config)

    def soften(self, targets: Tensor) -> Tensor:
        """Return targets that mixup can mix."""
        return self.base.soften(targets)


class Uncertain(Balanced):
    """A learned variance s per task (Kendall, Gal & Cipolla 2018): ``exp(-s) * loss + s / 2`` per label, half the loss for numbers."""

    def __init__(self, base: Supervised, method: MultiTask) -> None:
        super().__init__(base, method)
        self.log_variances = nn.ParameterDict({str(number): nn.Parameter(torch.zeros(())) for number in range(len(self.members))})
        self.module = nn.ModuleDict({"model": base.model, "log_variances": self.log_variances})
        self.factors = [1.0 if member.task.has_classes else 0.5 for member in self.members]

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the sum of the negative log-likelihoods."""
        one, found = batch["train"], []
        for number, loss in enumerate(self._losses(forward(one.x), one.y)):
            labels = (~one.y[:, self.members[number].columns].isnan().all(1)).sum()
            found.append((-self.log_variances[str(number)]).exp() * loss + labels * self.log_variances[str(number)] / 2)
        return torch.stack(found).sum()

    def validate(self, infer: Infer) -> dict[str, float]:
        """Return the metrics of the tasks, and the weight of each."""
        weights = {f"{one.name}/weight": math.exp(-self.log_variances[str(k)].item()) for k, one in enumerate(self.members)}
        return super().validate(infer) | weights


class Surgical(Balanced):
    """The gradients of the tasks by the shared parameters, combined so that they do not undo each other.

    A combination is weights on the gradients that depend on their products alone, so the gradients of the heads stay as they are.
    Each step takes a backward pass per task.

    Args:
        base: The objective of the labels.
        method: The options.
        weighting: From the products of the gradients to a weight for each; None takes that of the options.
    """

    separable = False

    def __init__(self, base: Supervised, method: MultiTask, weighting: Weighting | None = None) -> None:
        super().__init__(base, method)
        self._weighting: Weighting = weighting or find_weighting(method.weighting)
        self.steps = 0

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the sum of the losses, whose gradient is the combination."""
        one = batch["train"]
        logits, targets = forward.gather(forward(one.x)), forward.gather(one.y)
        losses = self._losses(logits, targets)
        present = [place for place, member in enumerate(self.members) if not bool(targets[:, member.columns].isnan().all())]
        total = torch.stack(losses).sum()
        shared = [parameter for parameter in self.model.backbone.parameters() if parameter.requires_grad]
        if not torch.is_grad_enabled() or not shared or len(present) < 2:
            return total
        heads = [parameter for parameter in self.model.head.parameters() if parameter.requires_grad]
        gradients = gradients_of([losses[place] for place in present], [*shared, *heads])
        rows = forward.total(flat([own[: len(shared)] for own in gradients]))
        weights = task_weights(gramian(rows), self._weighting, step_seed(self.base.config.seed, self.steps)).tolist()
        of_shared = [weights] * len(shared) + [[1.0] * len(present)] * len(heads)
        return with_gradients(total, [*shared, *heads], combined(gradients, of_shared))

    def after_step(self) -> None:
        """Count the steps, whose number and the seed of the run are the seed of what a combination draws."""
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over the number of steps, in place."""
        self.steps = int(state.get("steps", 0))
