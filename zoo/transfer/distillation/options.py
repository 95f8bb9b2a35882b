"""The options of a distillation, with their ranges."""

from __future__ import annotations

import dataclasses
from typing import Any

from zoo.errors import OptionError, did_you_mean, fault_list
from zoo.transfer.method import Method
from zoo.util.numbers import is_finite

CLASSES = ("all", "shared")
TOKENS = ("", "hard", "soft")
_WEIGHTS = ("feature_weight", "attention_weight", "distance_weight", "angle_weight")


@dataclasses.dataclass(frozen=True)
class DistillOptions(Method):
    """The options of ``Distill``, which says what they mean."""

    teacher: Any
    temperature: float = 4.0
    weight: float = 0.5
    features: Any = None
    feature_weight: float = 1.0
    attention: Any = None
    attention_weight: float = 1.0
    distance_weight: float = 0.0
    angle_weight: float = 0.0
    token: str = ""
    classes: str = "all"
    unlabelled: Any = None

    def __post_init__(self) -> None:
        faults = []
        if not (is_finite(self.temperature) and self.temperature > 0):
            faults.append(f"temperature is {self.temperature!r}; it must be above 0")
        if not (is_finite(self.weight) and 0 <= self.weight <= 1):
            faults.append(f"weight is {self.weight!r}; it must be in [0, 1]")
        faults += [
            f"{name} is {value!r}; it must be 0 or more"
            for name in _WEIGHTS
            if not (is_finite(value := getattr(self, name)) and value >= 0)
        ]
        for name, known in (("token", TOKENS), ("classes", CLASSES)):
            if (value := getattr(self, name)) not in known:
                faults.append(f"{name} is {value!r}{did_you_mean(str(value), known)}; it can be: {', '.join(filter(None, known))}")
        if not (faults or self.weight or self.features or self.attention or self.distance_weight or self.angle_weight):
            faults.append("nothing is learned from the teacher: weight is 0, and no features, attention or relations are given")
        if faults:
            raise OptionError(fault_list("Distill cannot have these options:", faults))

    def describe(self) -> dict[str, Any]:
        """Return the name and the options as plain data, with digests of the teacher's values."""
        from zoo.transfer.distillation.teacher import describe_teacher

        return super().describe() | {"teacher": describe_teacher(self.teacher)}
