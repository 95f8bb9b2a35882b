"""Source-free adaptation: a trained model and unlabelled data of another domain, without the source (SHOT, Liang et al. 2020)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zoo.data.dataset import Batch
from zoo.engine.cache.forward import Forward
from zoo.engine.objective.objective import Objective
from zoo.engine.objective.supervised import Supervised
from zoo.engine.options.epochs import prefix_of, reads_pooled, shortest_frozen_prefix
from zoo.engine.rundir.run_folder import Run
from zoo.errors import OptionError, checked_fields, fault_list
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.transfer.domain.distances import entropies
from zoo.transfer.domain.fitting import has_units
from zoo.transfer.domain.objective import outputs_of
from zoo.transfer.domain.shift import named_differences
from zoo.transfer.domain.target import check_unseen, open_target
from zoo.transfer.method import Method
from zoo.util.numbers import is_finite

log = logging.getLogger("zoo")
MEMORY = 0.9  # share of the running centroids that a step keeps


@checked_fields
@dataclass(frozen=True)
class SourceFree(Method):
    """Make predictions sure, of many classes and equal within clusters, while the classifier is held; see ``adapt_source_free``.

    Attributes:
        pseudo: Weight of the cross-entropy against labels of the nearest class centroid, at least 0; the paper's is 0.3.
    """

    name: ClassVar[str] = "source-free"

    pseudo: float = 0.3

    def __post_init__(self) -> None:
        if not (is_finite(self.pseudo) and self.pseudo >= 0):
            raise OptionError(f"pseudo is {self.pseudo!r}; it must be a number of at least 0")

    def __call__(self, base: Supervised) -> Objective:
        """Return the objective of a run on the target.

        Raises:
            OptionError: If the model is new, its head does not fit, or nothing would train; all faults at once.
        """
        model, faults = base.model, []
        if not find_task(model.task).exclusive or not reads_pooled(model.head) or not hasattr(model.head, "linear"):
            faults.append("it needs one class per sample and the head 'linear' or 'mlp'")
        if model.has_random_head:
            faults.append("the head is new; train the model on the source first, and give it, or load it: zoo.load(folder)")
        whole = shortest_frozen_prefix(base.config, model.groups, model.frozen) == len(model.groups)
        if whole and not has_units(model):
            faults.append("the whole backbone is frozen and the classifier is held, so nothing trains; unfreeze groups")
        elif not has_units(model) and (names := _idle_phases(base)):
            recipe = base.config.recipe.name
            faults.append(f"nothing trains in {', '.join(names)} of recipe {recipe!r}: the classifier is held; take recipe='full'")
        if faults:
            raise OptionError(fault_list("source-free adaptation cannot train like this:", faults))
        return Hypothesis(base, self.pseudo)


def _idle_phases(base: Supervised) -> list[str]:
    """Return the phases that freeze the whole backbone."""
    config, groups, least = base.config, base.model.groups, base.model.frozen
    phases = [phase for phase in config.recipe.phases if phase.frozen != "each"]  # of which every part trains a group
    return [phase.name for phase in phases if prefix_of(phase, config, groups, least) == len(groups)]


class Hypothesis(Objective):
    """Information maximisation with a held classifier, and labels of the nearest class centroid.

    The centroids are running means over the steps, weighted by the probabilities, where the paper computes them anew before each
    epoch.

    Args:
        base: The objective of a table without the source; its labels are not used.
        pseudo: Weight of the labels of the centroids.
    """

    name, separable = "source-free", False

    def __init__(self, base: Supervised, pseudo: float) -> None:
        super().__init__(base.model, base.sources, base.valid, monitor=base.monitor)
        self.base, self.cache_obstacle, self._pseudo = base, base.cache_obstacle, pseudo
        self.validate = base.validate  # type: ignore[method-assign]
        self._sums: Tensor | None = None  # running sums of features by class, (classes, dim)
        self._seen: Tensor | None = None  # those of the last forward, taken over after its step

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the mean loss times the number of samples."""
        features, logits = (forward.gather(rows).float() for rows in outputs_of(self.model, forward, batch["train"].x))
        probabilities = logits.softmax(1)
        mean = probabilities.mean(0)
        loss = entropies(probabilities).mean() + (mean * torch.log(mean + 1e-5)).sum()
        with torch.no_grad():
            units = functional.normalize(features, dim=1)
            self._seen = probabilities.T @ units
            sums = self._seen if self._sums is None else self._sums.to(units.device)
            labels = (units @ functional.normalize(sums, dim=1).T).argmax(1)
        return (loss + self._pseudo * functional.cross_entropy(logits, labels)) * len(logits)

    @contextmanager
    def _held(self) -> Iterator[None]:
        layer: Any = self.model.head.linear
        states = [(parameter, parameter.requires_grad) for parameter in layer.parameters()]
        for parameter, _ in states:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter, state in states:
                parameter.requires_grad_(state)

    def active(self) -> Any:
        """Hold the classifier."""
        return self._held()

    def after_step(self) -> None:
        """Move the centroids."""
        if self._seen is not None:
            self._sums = self._seen.cpu() if self._sums is None else MEMORY * self._sums + (1 - MEMORY) * self._seen.cpu()

    def state_dict(self) -> dict[str, Any]:
        """Return the running sums."""
        return {"sums": self._sums}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over the running sums."""
        self._sums = state["sums"]


def adapt_source_free(model: TaskModel, target: Any, *, pseudo: float = 0.3, out: str | Path | None = None, **options: Any) -> Run:
    """Adapt a trained model to unlabelled data of another domain in place, without the data that it was trained on.

    The last layer is held; the rest trains so that predictions are sure, of many classes, and equal within clusters (SHOT, Liang et
    al. 2020). There is no validation: the last epoch is kept.

    Args:
        model: A trained model with the head ``linear`` or ``mlp``.
        target: As for ``zoo.open_data``; labels that it may have are not used.
        pseudo: See ``SourceFree``.
        out: Folder of the run, as for ``fit``.
        **options: As for ``TaskModel.fit``: recipe, epochs, lr and so on.

    Returns:
        The run.

    Raises:
        OptionError: If the model is new, or nothing would train.
        DataError: If the target cannot be opened, is what the model was trained on, or has labels of other classes.
    """
    table = open_target(model, target)
    check_unseen(model, target)
    for line in named_differences(model, model.labels, target) if model.labels else ():
        log.warning("%s", line)
    classes = tuple(model.labels or (str(number) for number in range(model.num_classes)))
    unused = np.arange(len(table)) % len(classes)  # a run needs labels; the objective reads none
    labelled = replace(table, targets=unused.astype(np.int64), classes=classes)
    return model.fit(labelled, False, out=out, objective=SourceFree(pseudo), **options)
