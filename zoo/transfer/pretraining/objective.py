"""The base of objectives on unlabelled data: no head trains, and the collapse meter stands in every record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.engine.loading.stream import Source, View
from zoo.engine.objective.objective import Infer, Objective
from zoo.models.heads import gives_features
from zoo.transfer.pretraining.collapse import collapse

if TYPE_CHECKING:
    from zoo.engine.objective.supervised import Supervised

METER = "meter"  # name of the samples that the collapse meter reads
MOST_METERED = 512


class SelfSupervised(Objective):
    """An objective on the inputs of the training data alone; their labels are not read, and no head trains.

    Of a model whose logits are its pooled features every record has the collapse meter, and the last epoch is kept, as no metric without
    labels says which one is best. Of other models the labels judge.

    Args:
        base: The objective of the labels, whose training data are used.
        views: Views of each sample; see ``Source``.
    """

    def __init__(self, base: Supervised, *, views: int | Sequence[View] = 1) -> None:
        table, self._metered = base.sources["train"].table, gives_features(base.model.head)
        rows = range(0, len(table), -(-len(table) // MOST_METERED))
        valid = {METER: table.select(rows)} if self._metered else base.valid
        super().__init__(base.model, {"train": Source(table, views=views)}, valid, monitor="steps" if self._metered else base.monitor)
        self.lower, self._base, self._steps = False if self._metered else None, base, 0

    def validate(self, infer: Infer) -> dict[str, float]:
        """Return the collapse meter and the steps so far, or the metrics of the labels."""
        if not self._metered:
            return self._base.validate(infer)
        return {**collapse(infer(METER)), "steps": float(self._steps)}

    def after_step(self) -> None:
        """Count the steps."""
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps."""
        return {"steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over the number of steps."""
        self._steps = int(state["steps"])
