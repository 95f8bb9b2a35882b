"""The objective of FixMatch and FlexMatch: labels, and strong views that are to be predicted like weak ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.data.dataset import Batch
from zoo.engine.cache.forward import Forward
from zoo.engine.loading.stream import Source
from zoo.engine.objective.objective import Infer
from zoo.engine.objective.supervised import Supervised
from zoo.transfer.beside_labels import BesideLabels
from zoo.transfer.semi.consistency import UNUSED, class_thresholds, consistency

UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class Rule:
    """Which predictions for weak views are taken as labels.

    Attributes:
        threshold: Least probability.
        weight: Weight of the loss on unlabelled samples.
        by_class: Whether a threshold per class follows how much is learned of it.
        low_start: Whether these start low.
        floor: The least of these.
    """

    threshold: float
    weight: float
    by_class: bool = False
    low_start: bool = True
    floor: float = 0.0


class Matching(BesideLabels):
    """The labels, and the consistency of a weak and a strong view of unlabelled samples.

    Args:
        name: The name of the method.
        base: The objective of the labels.
        source: The unlabelled samples, with a weak and a strong view of each.
        rule: Which predictions count.
    """

    def __init__(self, name: str, base: Supervised, source: Source, rule: Rule) -> None:
        super().__init__(base, {**base.sources, UNLABELLED: source})
        self.name, self.separable, self._rule = name, not rule.by_class, rule
        self._ratio = source.ratio
        self._chosen = torch.full((len(source.table),), UNUSED)  # the class of each sample as it was last surely predicted
        # Rows and classes of each batch of the step that is not taken yet, with UNUSED where not sure.
        self._noted: list[tuple[Tensor, Tensor]] = []
        self._counts = [0, 0]  # of the draws in the steps of an epoch on this rank: surely predicted ones, and all
        self._told = False  # whether they are of an epoch that has ended

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the sum of the losses of the labels, and the consistency as a mean over the unlabelled samples times that many labels."""
        one, more = batch["train"], batch[UNLABELLED]
        gather = (lambda rows: rows) if self.separable else forward.gather
        labelled = self.base.label_loss(gather(forward(one.x)), gather(one.y))
        with torch.no_grad():
            weak = gather(forward(more.x)).float()
        strong = gather(forward(more.views[0])).float()
        each = consistency(weak, strong, self._thresholds(weak.device))
        self._note(gather(torch.tensor(more.indices, device=weak.device)), weak)
        return labelled + self._rule.weight * self.share / self._ratio * each.sum()

    def validate(self, infer: Infer) -> dict[str, float]:
        """Return the metrics of the task, and which share of the unlabelled samples of the epoch was taken with a label."""
        (sure, drawn), self._told = self._counts_of_all(), True
        return self.base.validate(infer) | ({"pseudo_labelled": sure / drawn} if drawn else {})

    def before_step(self) -> None:
        """Forget what an attempt at the step that failed has predicted."""
        self._noted = []

    def after_step(self) -> None:
        """Take over the classes that the step has predicted; of a sample that it read twice, the last one."""
        noted = [torch.cat(parts).cpu() for parts in zip(*self._noted, strict=True)]
        rows, classes = noted or (torch.empty(0, dtype=torch.int64),) * 2
        sure = classes != UNUSED
        self._chosen[rows[sure]] = classes[sure]
        before = [0, 0] if self._told else self._counts
        self._counts = [before[0] + int(sure.sum()), before[1] + len(rows)]
        self._noted, self._told = [], False

    def state_dict(self) -> dict[str, Any]:
        """Return the classes of the unlabelled samples, and the state of the labels' objective."""
        return {"chosen": self._chosen.clone(), "counts": self._counts_of_all(), "told": self._told, "base": self.base.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over the classes of the unlabelled samples, and the state of the labels' objective."""
        counts = state["counts"] if self.ranks.main or not self.separable else (0, 0)
        self._chosen, self._counts = state["chosen"].clone(), [int(count) for count in counts]
        self._noted, self._told = [], bool(state["told"])
        self.base.load_state_dict(state["base"])

    def _counts_of_all(self) -> list[int]:
        """Return the counts of all ranks; where the rows are gathered, each rank has counted all of them."""
        return [int(self.ranks.total(count)) for count in self._counts] if self.separable else list(self._counts)

    def _thresholds(self, device: torch.device) -> Tensor | float:
        rule = self._rule
        if not rule.by_class:
            return rule.threshold
        found = class_thresholds(self._chosen, self.model.num_classes, rule.threshold, low_start=rule.low_start, floor=rule.floor)
        return found.to(device)

    def _note(self, rows: Tensor, weak: Tensor) -> None:
        """Remember the classes that a step has predicted; only ``after_step`` takes them over, as a failed step is taken again."""
        confidence, classes = weak.softmax(1).max(1)
        self._noted.append((rows, torch.where(confidence >= self._rule.threshold, classes, UNUSED)))
