"""Knowledge distillation: a student that learns from the outputs of a teacher beside its labels."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.errors import OptionError, checked_fields, did_you_mean, fault_list
from zoo.transfer.method import Method
from zoo.util.numbers import is_finite

if TYPE_CHECKING:
    from zoo.engine.train.objective import Objective
    from zoo.engine.train.supervised import Supervised

CLASSES = ("all", "shared")
TOKENS = ("", "hard", "soft")
_WEIGHTS = ("feature_weight", "attention_weight", "distance_weight", "angle_weight")


@checked_fields
@dataclasses.dataclass(frozen=True)
class Distill(Method):
    """Knowledge distillation (Hinton et al. 2015), of logits, features, attention, relations between samples, and a token.

    The loss of a sample is ``(1 - weight)`` times that of its label and ``weight`` times the divergence from the teacher's
    probabilities at a temperature, and what the further options add. The teacher never trains. It sees the views that the student
    sees, at its own size and normalisation (Beyer et al. 2022), or tokenized its own way; where they are fixed, its outputs are computed
    once.

    Attributes:
        teacher: A ``TaskModel``, the folder of a saved model, or a file of outputs (``.npz`` with ``logits``, or what ``zoo predict``
            wrote), which has one view of each sample. A ``Backbone`` or its name has no logits and teaches features alone.
        temperature: What the logits of both are divided by, above 0.
        weight: Share of the teacher's logits in the loss, in [0, 1]; 0 leaves them out, 1 leaves the labels out.
        features: Pairs of layer groups whose features are to be alike after a learned projection of the student's (FitNets, Romero et
            al. 2015): a mapping from the student's groups to the teacher's, ``"stage2:layer3,stage3:layer4"``, or names that both have.
            Tokens are compared at the places of their patches; for texts their means.
        feature_weight: Weight of the mean squared difference of each pair.
        attention: Pairs of groups whose spatial attention is to be alike (Zagoruyko & Komodakis 2017), given as ``features``.
        attention_weight: Weight of the squared distance of each pair, which is in [0, 2].
        distance_weight: Weight of the distances between the samples of a batch (RKD-D, Park et al. 2019).
        angle_weight: Weight of the angles between three samples of a batch (RKD-A, Park et al. 2019).
        token: ``hard`` or ``soft``: the distillation token of a vision transformer that has one, its second, learns the teacher's likeliest
            class or its softened probabilities in place of the class token (DeiT, Touvron et al. 2021), with ``weight`` as above. A
            linear classifier on it trains beside the model and is dropped.
        classes: ``all``: the teacher must know every class of the student; ``shared``: those that it does not know are left to the
            labels. Classes are matched by name.
        unlabelled: Further data without labels, any source that ``fit`` takes; the student learns from the teacher there too.
    """

    name: ClassVar[str] = "distill"

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

    def __call__(self, base: Supervised) -> Objective:
        """Return the objective of a student.

        Raises:
            OptionError: If the teacher is none, has another task, or lacks what is to be learned from it; all faults at once.
            DataError: If it does not know all classes, or a file lacks samples.
        """
        from zoo.transfer.distillation.setup import distilling

        return distilling(self, base)

    def describe(self) -> dict[str, Any]:
        """Return the name and the options as plain data, with digests of the teacher's values."""
        from zoo.transfer.distillation.teacher import describe_teacher

        return super().describe() | {"teacher": describe_teacher(self.teacher)}
