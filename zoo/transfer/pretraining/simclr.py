"""SimCLR: two augmented views of an image are to be more alike than views of different images (Chen et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch
from zoo.engine.cache.forward import Forward
from zoo.engine.options.recipe import Recipe
from zoo.errors import OptionError, checked_fields, fault_list
from zoo.transfer.contrastive import supervised_contrastive
from zoo.transfer.method import Method
from zoo.transfer.pretraining.objective import SelfSupervised
from zoo.transfer.recipes import OWN_RECIPES
from zoo.util.numbers import is_finite, is_whole

if TYPE_CHECKING:
    from zoo.engine.objective.supervised import Supervised

WIDEST = 2**16


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the mean over all 2 n views of the cross-entropy of finding the other view of the image (Chen et al. 2020, eq. 1).

    It is the supervised contrastive loss in which each image is a class of its own.

    Args:
        first: ``(n, dim)``, one view of each image.
        second: ``(n, dim)``, another view of the same images.
        temperature: What cosine similarities are divided by, above 0.
    """
    images = torch.arange(len(first), device=first.device).repeat(2)
    return supervised_contrastive(torch.cat([first, second]), images, temperature)


class Views(SelfSupervised):
    """Two views of each image that a projection brings together, against all others of the batch.

    Args:
        base: The objective of the labels, whose training data are used.
        method: The options.
    """

    name, separable, pooled = "simclr", False, False
    cache_obstacle = "both views of an image pass through the whole network"

    def __init__(self, base: Supervised, method: SimClr) -> None:
        super().__init__(base, views=2)
        self._temperature, dim = method.temperature, base.model.spec.features.dim
        hidden = method.hidden or dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(base.config.seed)
            self.projection = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, method.projection_dim))
        self.module = nn.ModuleDict({"model": base.model, "projection": self.projection})

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the mean loss of all views, times the number of images."""
        one = batch["train"]
        first, second = (self._projected(forward, x) for x in (one.x, *one.views))
        return len(first) * nt_xent(first, second, self._temperature)

    def _projected(self, forward: Forward, x: Tensor) -> Tensor:
        features = forward.features(x)
        with forward.autocast():
            return forward.gather(self.projection(features))


@checked_fields
@dataclass(frozen=True)
class SimClr(Method):
    """SimCLR (Chen et al. 2020): the backbone learns to know two augmented views of an image again among those of a batch.

    Views are made by ``augment`` of the run, so what it changes is what the features learn to ignore. The negatives are the other images
    of the batch: larger batches are harder.

    Attributes:
        temperature: What cosine similarities are divided by, above 0; the lower, the more the nearest images count.
        projection_dim: Width of the projection, on which the loss is computed and which is dropped afterwards.
        hidden: Width of its hidden layer; 0 is that of the features.

    Raises:
        OptionError: If a value is out of range.
    """

    temperature: float = 0.5
    projection_dim: int = 128
    hidden: int = 0

    name: ClassVar[str] = "simclr"
    recipe: ClassVar[Recipe] = OWN_RECIPES["simclr"]
    reads: ClassVar[tuple[str, ...]] = ("image", "volume")

    def __post_init__(self) -> None:
        faults = []
        if not is_finite(self.temperature) or self.temperature <= 0:
            faults.append(f"temperature is {self.temperature!r}; it must be a number above 0")
        for name, least in (("projection_dim", 1), ("hidden", 0)):
            value = getattr(self, name)
            if not is_whole(value) or not least <= value <= WIDEST:
                faults.append(f"{name} is {value!r}; it must be a whole number from {least} to {WIDEST}")
        if faults:
            raise OptionError(fault_list("SimClr cannot train like this:", faults))

    def __call__(self, base: Supervised) -> Views:
        """Return the objective of a run.

        Raises:
            OptionError: If images are not augmented, so that both views would be equal.
        """
        config = base.config
        if config.augment is None or not all(phase.augment for phase in config.recipe.phases):
            fault = "nothing is augmented, so both views of an image are equal; leave augment out, or name another than 'none'"
            raise OptionError(fault_list("SimCLR cannot train like this:", [fault]))
        return Views(base, self)
