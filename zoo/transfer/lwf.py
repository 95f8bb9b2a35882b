"""Learning without forgetting: the outputs of a model for its old task are kept while its backbone learns a new one."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.errors import OptionError, checked_fields, fault_list
from zoo.transfer.method import Method
from zoo.util.numbers import is_finite

if TYPE_CHECKING:
    from zoo.engine.objective.objective import Objective
    from zoo.engine.objective.supervised import Supervised


@checked_fields
@dataclasses.dataclass(frozen=True)
class LearnWithoutForgetting(Method):
    """Keep what a model says for its old task, on the images of the new one (Li & Hoiem 2016). No old data are needed.

    The model that trains starts from the old one's backbone: ``zoo.get("runs/old").adapt(num_classes)``. A copy of the old head trains with
    it on the old model's softened probabilities, the divergence of ``Distill``.

    Attributes:
        old: The old ``TaskModel``, or the folder where it is saved.
        temperature: What the logits are divided by, above 0; 2 in the paper.
        weight: Weight of the old task beside the loss of the labels, 0 or more; 1 in the paper.
        keep: New folder in which the old task's model is saved when the run ends, with the backbone that has trained; None saves none.
    """

    name: ClassVar[str] = "lwf"

    old: Any
    temperature: float = 2.0
    weight: float = 1.0
    keep: Any = None

    def __post_init__(self) -> None:
        faults = []
        if not (is_finite(self.temperature) and self.temperature > 0):
            faults.append(f"temperature is {self.temperature!r}; it must be above 0")
        if not (is_finite(self.weight) and self.weight >= 0):
            faults.append(f"weight is {self.weight!r}; it must be 0 or more")
        if self.keep is not None and not isinstance(self.keep, str | os.PathLike):
            faults.append(f"keep is {self.keep!r}; it must be the name of a folder, or None")
        if faults:
            raise OptionError(fault_list("LearnWithoutForgetting cannot have these options:", faults))

    def __call__(self, base: Supervised) -> Objective:
        """Return the objective of a model that is not to forget.

        Raises:
            OptionError: If the old model does not fit the new one; all faults at once.
            OutputExistsError: If ``keep`` is there already, unless this run, then interrupted, saved into it.
            OutputPermissionError: If ``keep`` may not be written.
        """
        from zoo.transfer.keeping import keeping

        return keeping(base, self.old, temperature=float(self.temperature), weight=float(self.weight), keep=self.keep)

    def describe(self) -> dict[str, Any]:
        """Return the name and the options as plain data, with digests of the old model's values."""
        from zoo.transfer.distillation.teacher import describe_teacher

        return super().describe() | {"old": describe_teacher(self.old)}
