"""Contrastive training on pairs of equal and of different classes, for few labels per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from zoo.data.dataset import Batch
from zoo.engine.cache.forward import Forward
from zoo.engine.options.recipe import Recipe
from zoo.errors import OptionError, checked_fields, did_you_mean, fault_list
from zoo.transfer.method import Method
from zoo.transfer.recipes import OWN_RECIPES
from zoo.transfer.solved_after import FeatureObjective, check_classes
from zoo.util.numbers import is_finite

if TYPE_CHECKING:
    from zoo.engine.objective.supervised import Supervised

PAIRS = ("cosine", "supcon")


def supervised_contrastive(features: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Return the mean over samples of how little their own class stands out among all others (Khosla et al. 2020, L_out).

    For sample i with positives P(i), the others of its class, it is the mean over p in P(i) of
    -log(exp(s_ip / t) / sum over a != i of exp(s_ia / t)), s the cosine similarity. Samples without another of their class count only as
    negatives; without any positive the loss is 0.

    Args:
        features: ``(samples, dim)``.
        classes: ``(samples,)``, whole numbers.
        temperature: Above 0.
    """
    similarity, equal, other = _compared(features, classes)
    logits = (similarity / temperature).masked_fill(~other, -torch.inf)
    log_probability = similarity / temperature - logits.logsumexp(1, keepdim=True)
    positives = equal.sum(1)
    each = -log_probability.where(equal, 0.0).sum(1) / positives.clamp(min=1)
    return each.sum() / (positives > 0).sum().clamp(min=1)


def cosine_pairs(features: Tensor, classes: Tensor) -> Tensor:
    """Return the mean squared distance of the cosine of pairs to 1 if their classes are equal, else to 0.

    It is the loss of SetFit (Tunstall et al. 2022), on all pairs of a batch; pairs of equal and of different classes weigh the same
    together, as there by drawing the rarer kind more often.

    Args:
        features: ``(samples, dim)``.
        classes: ``(samples,)``, whole numbers.
    """
    similarity, equal, other = _compared(features, classes)
    different = other & ~equal
    distance = (similarity - equal.to(similarity.dtype)).square()
    kinds = [distance.where(kind, 0.0).sum() / kind.sum().clamp(min=1) for kind in (equal, different)]
    return (kinds[0] + kinds[1]) / 2


def _compared(features: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return cosine similarities, pairs of equal class, and pairs of two samples at all, each ``(samples, samples)``."""
    with torch.autocast(features.device.type, enabled=False):  # bf16 has too few digits for cosines near one
        rows = functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)
        similarity = rows @ rows.T
    other = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return similarity, (classes[:, None] == classes[None]) & other, other


class ContrastiveObjective(FeatureObjective):
    """Features that are alike within a class, by all pairs of a batch; the head is solved on them.

    Args:
        base: The objective of the labels, which solves the head and validates.
        loss: From features and classes of a batch to its mean loss.
    """

    name = "contrastive"

    def __init__(self, base: Supervised, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(base)
        self._loss = loss

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the loss of all pairs of the batch, times its samples."""
        features, classes = forward.gather(forward.features(batch["train"].x)), forward.gather(batch["train"].y)
        return len(classes) * self._loss(features, classes)


@checked_fields
@dataclass(frozen=True)
class Contrastive(Method):
    """Trains the backbone on pairs of equal and of different classes, then solves the head (Tunstall et al. 2022; Khosla et al. 2020).

    n samples make n (n - 1) / 2 pairs, so few labels say more together than each by itself does. All pairs of a batch are compared, which
    costs no more than its samples do.

    Attributes:
        pairs: ``cosine``, the loss of SetFit, or ``supcon``, the supervised contrastive loss.
        temperature: Of ``supcon``, above 0; the lower, the more the nearest samples count.

    Raises:
        OptionError: If a value is out of range.
    """

    pairs: str = "cosine"
    temperature: float = 0.1

    name: ClassVar[str] = "contrastive"
    recipe: ClassVar[Recipe] = OWN_RECIPES["contrastive"]

    def __post_init__(self) -> None:
        faults = []
        if self.pairs not in PAIRS:
            faults.append(f"pairs is {self.pairs!r}{did_you_mean(str(self.pairs), PAIRS)}; it is one of {', '.join(PAIRS)}")
        if not is_finite(self.temperature) or self.temperature <= 0:
            faults.append(f"temperature is {self.temperature!r}; it must be a number above 0")
        if faults:
            raise OptionError(fault_list("Contrastive cannot train like this:", faults))

    def __call__(self, base: Supervised) -> ContrastiveObjective:
        """Return the objective of a run.

        Raises:
            OptionError: If the task is not to choose one of several classes.
            DataError: If the data have no pair of equal or none of different classes.
        """
        check_classes(base, self.name)
        loss = cosine_pairs if self.pairs == "cosine" else partial(supervised_contrastive, temperature=self.temperature)
        return ContrastiveObjective(base, loss)
