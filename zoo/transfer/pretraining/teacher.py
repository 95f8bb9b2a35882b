"""The loss of DINO, its projection, and the teacher that follows the student (Caron et al. 2021)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from zoo.models.task_model import TaskModel


def dino_loss(
    teacher: Sequence[Tensor], student: Sequence[Tensor], center: Tensor, *, teacher_temperature: float, student_temperature: float
) -> Tensor:
    """Return the mean cross-entropy of each student view against each teacher view of another crop (Caron et al. 2021, eq. 3).

    Args:
        teacher: Outputs for the global views, each ``(n, prototypes)``.
        student: Outputs for all views, the global ones first and in the same order.
        center: Subtracted from the teacher's outputs, ``(prototypes,)``.
        teacher_temperature: What the teacher's outputs are divided by, above 0; the lower, the sharper.
        student_temperature: The same for the student's.
    """
    targets = [((rows - center) / teacher_temperature).softmax(1) for rows in teacher]
    logs = [(rows / student_temperature).log_softmax(1) for rows in student]
    pairs = [-(target * log).sum(1).mean() for one, target in enumerate(targets) for other, log in enumerate(logs) if one != other]
    return torch.stack(pairs).mean()


def momentum_at(step: int, steps: int, start: float) -> float:
    """Return the share of its values that the teacher keeps in a step: a cosine from ``start`` to 1 over the run."""
    return 1.0 - (1.0 - start) * (math.cos(math.pi * min(1.0, step / max(1, steps - 1))) + 1) / 2


class Prototypes(nn.Module):
    """Three layers to a vector of length one, and its cosines with prototypes.

    Args:
        dim: Width of the features.
        count: Number of prototypes.
        hidden: Width of the hidden layers.
        width: Width of the vector.
    """

    def __init__(self, dim: int, count: int, *, hidden: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, width))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.empty(count, width))
        nn.init.kaiming_uniform_(self.prototypes, a=math.sqrt(5))

    def forward(self, features: Tensor) -> Tensor:
        """Return cosines, ``(n, prototypes)``."""
        rows = functional.normalize(self.layers(features), dim=1)
        return functional.linear(rows, functional.normalize(self.prototypes, dim=1))


class Teacher(nn.Module):
    """The moving average of a student, and the centre of its outputs.

    Args:
        model: The model whose features the student gives.
        projection: The student's projection.
    """

    center: Tensor

    def __init__(self, model: TaskModel, projection: Prototypes) -> None:
        super().__init__()
        self.model, self.projection = copy.deepcopy(model), copy.deepcopy(projection)
        self.requires_grad_(False)
        self.register_buffer("center", torch.zeros(len(projection.prototypes)))
        self.train()

    def train(self, mode: bool = True) -> Teacher:
        """Set the mode of BatchNorm alone; nothing of the teacher is dropped, neither values nor blocks."""
        super().train(mode)
        for part in self.modules():
            part.training = mode and isinstance(part, nn.modules.batchnorm._BatchNorm)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return its outputs, ``(n, prototypes)``."""
        found: Tensor = self.projection(self.model.embed_batch(x))
        return found

    @torch.no_grad()
    def follow(self, student: Sequence[nn.Module], keep: float) -> None:
        """Move toward the student, in place.

        Args:
            student: Its model and its projection.
            keep: Share of the own values that stay.
        """
        for own, other in zip((self.model, self.projection), student, strict=True):
            for value, now in zip(own.parameters(), other.parameters(), strict=True):
                value.lerp_(now.detach().to(value.dtype), 1 - keep)
