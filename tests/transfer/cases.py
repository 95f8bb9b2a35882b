"""One small case of every method, for the test that holds all of them to what the engine promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.engine.rank_work import PHOTOS, plain
from tests.engine.tiny import images
from zoo.models.task_model import TaskModel
from zoo.transfer import DomainAdaptation


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


TARGET = images(18, seed=5)[0] // 2

CASES: dict[str, Case] = {
    "cdan-e": Case(lambda: DomainAdaptation(TARGET, method="cdan-e", hidden=8, spectral=1e-4)),
    "jan": Case(lambda: DomainAdaptation(TARGET, method="jan"), partial(plain, head="mlp", hidden=4, dropout=0.0)),
}
