"""One small case of every method, for the test that holds all of them to what the engine promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.engine.rank_work import PHOTOS, plain
from tests.engine.tiny import images
from tests.toy import toy_spec
from zoo.declare import Features, Image
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.transfer import Distill, LearnWithoutForgetting


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


def teacher() -> TaskModel:
    """Return a wider network that reads larger images and has classes in another order."""
    spec = toy_spec("toy/teacher", inputs=Image(size=24), options={"width": 12}, features=Features(dim=12, layout="BCHW"))
    return Backbone(spec, weights=False).adapt(4, labels=("red", "violet", "green", "blue"), seed=3)


def taught() -> TaskModel:
    """Return a teacher whose head counts as trained."""
    net = teacher()
    with torch.no_grad():
        net.head.linear.weight.mul_(20)  # type: ignore[operator,union-attr]  # a linear head
    return net


UNLABELLED = images(9, seed=4)[0]
CASES: dict[str, Case] = {
    "distill": Case(lambda: Distill(taught(), unlabelled=UNLABELLED, weight=0.7)),
    "distill-features": Case(lambda: Distill(teacher(), weight=0, features="stage.1:stage.1", attention="stage.0,stage.2:stage.1")),
    "lwf": Case(lambda: LearnWithoutForgetting(plain(2, labels=("day", "night"), seed=0))),
    "distill-relations": Case(lambda: Distill(taught(), distance_weight=1.0, angle_weight=2.0, unlabelled=UNLABELLED)),
}
