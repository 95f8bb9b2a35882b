"""The objective of domain adaptation: labels of the source, and an alignment of source and target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch
from zoo.data.table import Table
from zoo.engine.cache.forward import Forward
from zoo.engine.loading.stream import Source
from zoo.engine.objective.objective import Infer
from zoo.engine.objective.supervised import Supervised
from zoo.engine.options.config import Config
from zoo.models.heads import MLPHead
from zoo.models.task_model import TaskModel
from zoo.transfer.beside_labels import BesideLabels
from zoo.transfer.domain.alignments import Alignment, Rows, spectral_penalty
from zoo.transfer.domain.fitting import has_units
from zoo.transfer.domain.reversal import grl_coefficient
from zoo.transfer.domain.validators import validate_target
from zoo.tuning.statistics import moving_norms

STEEPNESS = 10.0  # of the warm start over the steps of a run (Ganin et al. 2016)


class Adapted(BesideLabels):
    """Labels of the source beside an alignment of both domains, judged on the target without labels.

    The aligned features are what the last layer reads: hidden units of an MLP head, else the pooled features of the backbone.

    Args:
        base: The objective of the labels.
        target: The target domain, without labels.
        alignment: The alignment, or None.
        weight: Of its loss.
        spectral: Weight of the batch spectral penalty.
        starts_slowly: Whether the weight rises with the steps.
        statistics: Whether norms take the statistics of the target (AdaBN).
        monitor: The metric that chooses the epoch; None for that of the labels.
    """

    name, separable = "domain-adaptation", False

    def __init__(
        self,
        base: Supervised,
        target: Table,
        alignment: Alignment | None,
        *,
        weight: float,
        spectral: float = 0.0,
        starts_slowly: bool = False,
        statistics: bool = False,
        monitor: str | None = None,
    ) -> None:
        sources = base.sources | ({} if alignment is None and not statistics else {"target": Source(target)})
        super().__init__(base, sources, base.valid | {"target": target}, monitor=monitor)
        if monitor is not None:
            self.lower = monitor == "target_entropy"
        self.alignment = alignment
        self._weight, self._spectral, self._slow, self._statistics = weight, spectral, starts_slowly, statistics
        self._steps = 0
        if alignment is not None:
            self.module = nn.ModuleDict({"model": base.model, "alignment": alignment})

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the loss of the labels, plus the alignment as a mean over them."""
        with self._held_statistics():
            features, logits = outputs_of(self.model, forward, batch["train"].x)
        y = forward.gather(batch["train"].y)
        labelled = self.base.label_loss(forward.gather(logits), y)
        if self.alignment is None:
            self._take_statistics(forward, batch)
            return labelled
        strength = self._strength()
        source = self._gathered(forward, self.alignment.rows(features, logits, strength), features)
        features, logits = outputs_of(self.model, forward, batch["target"].x)
        target = self._gathered(forward, self.alignment.rows(features, logits, strength), features)
        if len(y) < 2:  # one sample has no distance
            return labelled
        with torch.autocast(y.device.type, enabled=False):  # bf16 has too few digits for distances between samples
            loss: Tensor = self.alignment(source, target) * (strength if self._slow else 1.0) * self._weight
            if self._spectral:
                loss = loss + self._spectral * spectral_penalty(source, target)
        return labelled + loss * self.base.weight({"train": batch["train"]._replace(y=y, indices=[*range(len(y))])})

    def can_solve(self, config: Config) -> bool:
        """Return False: the head is trained beside the alignment from the first phase on."""
        return False

    def validate(self, infer: Infer) -> dict[str, float]:
        """Return the metrics of the source, and those of the target that need no labels."""
        metrics = self.base.validate(infer) if self.base.valid else {}
        return metrics | (validate_target(infer("target"), snd=self.monitor == "target_snd") if self.base.task.exclusive else {})

    def after_step(self) -> None:
        """Count the steps, which the warm start follows."""
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps, and the state of the labels' objective."""
        return {"steps": self._steps, "base": self.base.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over the number of steps, and the state of the labels' objective."""
        self._steps = int(state["steps"])
        self.base.load_state_dict(state["base"])

    def _strength(self) -> float:
        return grl_coefficient(self._steps, max(1, self.total_steps), alpha=STEEPNESS)

    def _gathered(self, forward: Forward, rows: Rows, features: Tensor) -> Rows:
        rows = dict(rows) | ({"features": features} if self._spectral else {})
        return {name: forward.gather(values.float() if values.is_floating_point() else values) for name, values in rows.items()}

    @contextmanager
    def _held_statistics(self) -> Iterator[None]:
        """Keep the running statistics of norms in a pass of the source, where they are to be the target's."""
        norms: list[Any] = moving_norms(self.model) if self._statistics else []
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum

    def _take_statistics(self, forward: Forward, batch: Mapping[str, Batch]) -> None:
        """Let the norms take the statistics of a batch of the target."""
        if self._statistics:
            with torch.no_grad():
                forward.features(batch["target"].x)


def outputs_of(model: TaskModel, forward: Forward, x: Any) -> tuple[Tensor, Tensor]:
    """Return what the last layer reads, ``(n, dim)``, and the logits."""
    features = forward.features(x)
    if isinstance(model.head, MLPHead) and has_units(model):
        units = model.head.hidden_units(features)
        return units, model.head.linear(units)
    return features, forward.logits(features)
