"""Alignments: from the outputs for a batch of each domain to the loss that brings the domains together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.transfer.domain.distances import bsp, coral, entropies, jmmd, mcc, mdd, mk_mmd
from zoo.transfer.domain.reversal import reverse
from zoo.transfer.semi.consistency import consistency

Rows = Mapping[str, Tensor]
"""Outputs for the samples of a batch by name, a row per sample."""

WIDEST_MAP = 4096  # values of an outer product of features and probabilities, above which it is projected (CDAN, Long et al. 2018)
PROJECTED = 1024
LARGEST_REVERSAL = 0.1  # of the gradient of MDD's adversary, as in the paper's code


@dataclass(frozen=True)
class Sizes:
    """The sizes and numbers that an alignment is built from.

    Attributes:
        dim: Width of the aligned features.
        classes: Classes of the model.
        hidden: Width of the hidden layer of a discriminator or adversary.
        temperature: Of MCC.
        margin: Of MDD.
        threshold: Least probability of a pseudo-label.
    """

    dim: int
    classes: int
    hidden: int = 256
    temperature: float = 2.5
    margin: float = 4.0
    threshold: float = 0.9


class Alignment(nn.Module):
    """A loss of the outputs of both domains, with the modules that it trains beside the model."""

    def rows(self, features: Tensor, logits: Tensor, strength: float) -> Rows:
        """Return the outputs of one domain that ``forward`` needs; every module is applied here, to the rows of this process.

        Args:
            features: ``(n, dim)``.
            logits: ``(n, classes)``.
            strength: Of a gradient reversal, from 0 to 1.
        """
        return {"features": features, "logits": logits}

    def forward(self, source: Rows, target: Rows) -> Tensor:
        """Return the mean loss of a batch."""
        raise TypeError(f"{type(self).__name__} has no forward")


class Distance(Alignment):
    """A function of the outputs of both domains, without modules of its own.

    Args:
        function: Returns the loss of the rows of the source and of the target.
    """

    def __init__(self, function: Callable[[Rows, Rows], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, source: Rows, target: Rows) -> Tensor:
        """Return the distance."""
        return self._function(source, target)


class Dann(Alignment):
    """A discriminator of the domains, whose gradient is reversed for the features (DANN, Ganin et al. 2016).

    Its layers have no batch statistics, so that several processes train what one trains.

    Args:
        sizes: Widths of the discriminator.
        inputs: Width of what it reads; None for that of the features.
    """

    def __init__(self, sizes: Sizes, inputs: int | None = None) -> None:
        super().__init__()
        self.discriminator = _perceptron(sizes.dim if inputs is None else inputs, sizes.hidden, 1)

    def rows(self, features: Tensor, logits: Tensor, strength: float) -> Rows:
        """Return the logit of the source domain."""
        return {"domain": self.discriminator(reverse(features, strength))[:, 0]}

    def forward(self, source: Rows, target: Rows) -> Tensor:
        """Return the cross-entropy of the discriminator, the mean of both domains."""
        return (_domain_losses(source["domain"], 1.0).mean() + _domain_losses(target["domain"], 0.0).mean()) / 2


class Cdan(Dann):
    """A discriminator of the outer products of features and probabilities (CDAN, Long et al. 2018).

    Args:
        sizes: Widths of the discriminator.
        weighted: Weight samples by the certainty of their predictions (CDAN+E).
    """

    left: Tensor
    right: Tensor

    def __init__(self, sizes: Sizes, *, weighted: bool) -> None:
        wide = sizes.dim * sizes.classes
        super().__init__(sizes, min(wide, PROJECTED) if wide > WIDEST_MAP else wide)
        self._weighted, self._projected = weighted, wide > WIDEST_MAP
        for name, width in (("left", sizes.dim), ("right", sizes.classes)):
            self.register_buffer(name, torch.randn(width, PROJECTED) if self._projected else torch.empty(0))

    def rows(self, features: Tensor, logits: Tensor, strength: float) -> Rows:
        """Return the logit of the source domain, and the logits of the classes."""
        probabilities = logits.detach().float().softmax(1)
        joint = self._joint(features, probabilities)
        return {"domain": self.discriminator(reverse(joint, strength))[:, 0], "certainty": 1 + torch.exp(-entropies(probabilities))}

    def forward(self, source: Rows, target: Rows) -> Tensor:
        """Return the cross-entropy of the discriminator, the mean of both domains."""
        if not self._weighted:
            return super().forward(source, target)
        means = []
        for side, truth in ((source, 1.0), (target, 0.0)):
            weights = side["certainty"] / side["certainty"].sum()
            means.append((_domain_losses(side["domain"], truth) * weights).sum())
        return (means[0] + means[1]) / 2

    def _joint(self, features: Tensor, probabilities: Tensor) -> Tensor:
        if self._projected:
            projected: Tensor = (features.float() @ self.left) * (probabilities @ self.right) / PROJECTED**0.5
            return projected
        return torch.einsum("nc,nd->ncd", probabilities, features.float()).flatten(1)


class Mdd(Alignment):
    """An adversary that disagrees with the classifier on the target alone (margin disparity discrepancy, Zhang et al. 2019).

    Args:
        sizes: Widths of the adversary, and the margin.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.adversary, self._margin = _perceptron(sizes.dim, sizes.hidden, sizes.classes), sizes.margin

    def rows(self, features: Tensor, logits: Tensor, strength: float) -> Rows:
        """Return the logits of the classifier and of the adversary."""
        return {"logits": logits.detach().float(), "adversary": self.adversary(reverse(features, LARGEST_REVERSAL * strength)).float()}

    def forward(self, source: Rows, target: Rows) -> Tensor:
        """Return the negative discrepancy, which the adversary minimises."""
        return -mdd(source["logits"], source["adversary"], target["logits"], target["adversary"], margin=self._margin)


def pseudo_labels(logits: Tensor, threshold: float) -> Tensor:
    """Return the cross-entropy against the most likely classes, over all samples; those below a probability count as 0 (Lee 2013).

    Args:
        logits: Of unlabelled samples, ``(n, classes)``.
        threshold: Least probability.
    """
    return consistency(logits, logits, threshold).mean()


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _domain_losses(logits: Tensor, truth: float) -> Tensor:
    targets = torch.full_like(logits, truth, dtype=torch.float32)
    return functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")


def _of_features(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Rows, Rows], Tensor]:
    return lambda source, target: function(source["features"].float(), target["features"].float())


def _joint_distance(source: Rows, target: Rows) -> Tensor:
    features = (side["features"].float() for side in (source, target))
    return jmmd(*features, *(side["logits"].float().softmax(1) for side in (source, target)))


@dataclass(frozen=True)
class Kind:
    """A method in the table.

    Attributes:
        make: Builds its alignment; None for none.
        weight: Default weight of its loss beside that of the labels.
        of_features: Whether it moves features and nothing else.
        of_classes: Whether it needs one class per sample.
        starts_slowly: Whether its weight rises with the steps like the strength of a gradient reversal.
    """

    make: Callable[[Sizes], Alignment] | None
    weight: float = 1.0
    of_features: bool = False
    of_classes: bool = False
    starts_slowly: bool = False


def _distance(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Sizes], Alignment]:
    return lambda _: Distance(_of_features(function))


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "source-only": Kind(None),
        "adabn": Kind(None),
        "coral": Kind(_distance(coral), of_features=True),
        "dan": Kind(_distance(mk_mmd), of_features=True),
        "jan": Kind(lambda _: Distance(_joint_distance), of_classes=True),
        "dann": Kind(Dann, of_features=True),
        "cdan": Kind(partial(Cdan, weighted=False), of_features=True, of_classes=True),
        "cdan-e": Kind(partial(Cdan, weighted=True), of_features=True, of_classes=True),
        "mcc": Kind(lambda sizes: Distance(lambda _, target: mcc(target["logits"].float(), sizes.temperature)), of_classes=True),
        "mdd": Kind(Mdd, of_features=True, of_classes=True),
        "pseudo-labels": Kind(
            lambda sizes: Distance(lambda _, target: pseudo_labels(target["logits"].float(), sizes.threshold)),
            of_classes=True,
            starts_slowly=True,
        ),
    }
)


def spectral_penalty(source: Rows, target: Rows) -> Tensor:
    """Return the batch spectral penalty of the features of both domains."""
    return bsp(source["features"], target["features"])
