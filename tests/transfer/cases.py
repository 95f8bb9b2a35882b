"""One small case of every method, for the test that holds all of them to what the engine promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import zoo
from tests.engine.rank_work import PHOTOS, plain
from tests.engine.tiny import NAMES, images
from tests.toy import toy_spec
from zoo.engine.train.objective import Objective
from zoo.engine.train.supervised import Supervised
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.transfer import MultiTask
from zoo.transfer.multi_task import Surgical


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


PLAIN = toy_spec("toy/plain", build="tests.engine.rank_work:plainnet", layers={"stem": "conv1", "stage": "blocks.*"})


class PlainPlugin:
    """A plugin as an object with the backbone of the cases, by which their saved models are opened."""

    @zoo.hookimpl
    def zoo_backbones(self) -> list[zoo.BackboneSpec]:
        return [PLAIN]


def plain_tasks(tasks: dict[str, Any]) -> TaskModel:
    torch.manual_seed(0)
    return Backbone(PLAIN, weights=False).adapt_tasks(tasks)


def two_tasks() -> TaskModel:
    return plain_tasks({"kind": list(NAMES), "light": "regression"})


def with_light(count: int, seed: int = 0) -> tuple[Any, dict[str, list[Any]]]:
    """Return images with two labels, of which one or the other may be missing."""
    pixels, kinds = images(count, seed)
    light = [float(image.mean()) / 100 for image in pixels]
    return pixels, {
        "kind": [None if row % 4 == 3 else kind for row, kind in enumerate(kinds)],
        "light": [None if row % 3 == 2 else value for row, value in enumerate(light)],
    }


def projected(products: torch.Tensor) -> torch.Tensor:
    """Return the weights of gradients of which each loses what goes against another one (PCGrad for two tasks)."""
    against = products[0, 1].clamp(max=0)
    return torch.stack([1 - against / products[0, 0], 1 - against / products[1, 1]])


def surgery(base: Supervised) -> Objective:
    return Surgical(base, MultiTask(), weighting=projected)


TASKS = (with_light(33), with_light(13, 1))
CASES: dict[str, Case] = {
    "multi-task": Case(lambda: MultiTask(task_weights={"kind": 2}), two_tasks, TASKS, {"recipe": "layer-decay"}),
    "multi-task-uncertain": Case(lambda: MultiTask(weighting="uncertainty", sampling="temperature"), two_tasks, TASKS),
    "multi-task-in-turn": Case(lambda: MultiTask(sampling="round-robin"), two_tasks, TASKS),
    "multi-task-surgery": Case(lambda: surgery, two_tasks, TASKS),
}
