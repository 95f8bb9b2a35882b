"""Knowledge distillation: a student that learns from the outputs of a teacher beside its labels."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from zoo.errors import checked_fields
from zoo.transfer.distillation.options import DistillOptions

if TYPE_CHECKING:
    from zoo.engine.objective.objective import Objective
    from zoo.engine.objective.supervised import Supervised


@checked_fields
@dataclasses.dataclass(frozen=True)
class Distill(DistillOptions):
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

    def __call__(self, base: Supervised) -> Objective:
        """Return the objective of a student.

        Raises:
            OptionError: If the teacher is none, has another task, or lacks what is to be learned from it; all faults at once.
            DataError: If it does not know all classes, or a file lacks samples.
        """
        from zoo.transfer.distillation.setup import distilling

        return distilling(self, base)
