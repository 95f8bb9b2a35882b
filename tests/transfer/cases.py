"""One small case of every method, for the test that holds all of them to what the engine promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zoo
from tests.engine.rank_work import PHOTOS, TEXTS, plain, text
from zoo.models.task_model import TaskModel


@dataclass(frozen=True)
class Case:
    """A method on tiny data.

    Attributes:
        make: Returns the method, or another function from ``Supervised`` to an objective.
        model: Returns the model, with the same values each time. Without BatchNorm, whose statistics are those of a rank.
        data: Training and validation data.
        options: Options of the run.
    """

    make: Callable[[], Any]
    model: Callable[[], TaskModel] = plain
    data: tuple[Any, Any] = PHOTOS
    options: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Case] = {
    "contrastive": Case(lambda: zoo.transfer.Contrastive(pairs="supcon"), options={"recipe": None, "epochs": 4}),
    "contrastive-cosine-texts": Case(
        lambda: zoo.transfer.Contrastive(), text, TEXTS, {"recipe": None, "epochs": 4, "batch_size": 12, "lr": 1e-3}
    ),
    "anil": Case(lambda: zoo.transfer.Maml(shots=2), options={"recipe": None, "epochs": 4, "batch_size": 16}),
}
