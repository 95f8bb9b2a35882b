"""One small case of every method, for the test that holds all of them to what the engine promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

import zoo
from tests.engine.rank_work import PHOTOS, PLAIN, TEXTS, TOKENS, plain, text
from tests.engine.tiny import NAMES, images
from tests.toy import toy_spec
from tests.toy_pair import pair_spec
from zoo.declare import Features, Image
from zoo.engine.objective.objective import Objective
from zoo.engine.objective.supervised import Supervised
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.transfer import (
    Dino,
    Distill,
    DomainAdaptation,
    FixMatch,
    FlexMatch,
    LearnWithoutForgetting,
    MaskedAutoencoder,
    MaskedLanguage,
    MultiTask,
    SimClr,
    SourceFree,
)
from zoo.transfer.multi_task import Surgical


@dataclass(frozen=True)
class Case:
    """A method on tiny data.

    Attributes:
        make: Returns the method, or another function from ``Supervised`` to an objective.
        model: Returns the model, with the same values each time. Without BatchNorm, whose statistics are those of a rank.
        data: Training and validation data.
        options: Options of the run.
        ranks: Whether two processes train what one trains; else they are refused, or have statistics of their own.
    """

    make: Callable[[], Any]
    model: Callable[[], TaskModel] = plain
    data: tuple[Any, Any] = PHOTOS
    options: dict[str, Any] = field(default_factory=dict)
    ranks: bool = True


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


def trained_before() -> TaskModel:
    """Return a small network whose head counts as trained."""
    net = plain()
    with torch.no_grad():
        net.head.linear.weight.mul_(20)  # type: ignore[operator,union-attr]  # a linear head
    return net


def with_norms() -> TaskModel:
    """Return a network with BatchNorm, whose statistics move."""
    torch.manual_seed(0)
    return zoo.get("zoo/glyphnet", weights=False).adapt(len(NAMES), in_chans=3)


def tokens() -> TaskModel:
    torch.manual_seed(0)
    return Backbone(TOKENS, weights=False).adapt(3)


def plain_tasks(tasks: dict[str, Any]) -> TaskModel:
    torch.manual_seed(0)
    return Backbone(PLAIN, weights=False).adapt_tasks(tasks)


def two_tasks() -> TaskModel:
    return plain_tasks({"kind": list(NAMES), "light": "regression"})


def dual(*, sigmoid: bool = False) -> TaskModel:
    """Return a zero-shot classifier of a dual encoder with random values."""
    return Backbone(pair_spec(name="toy/sigmoid-pair" if sigmoid else "toy/pair", sigmoid=sigmoid), weights=False).zero_shot(NAMES)


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


# Its first two tokens count as that of the class and that of the teacher.
TWO_TOKENS = replace(TOKENS, name="toy/two-tokens", features=Features(dim=8, layout="BND", pool="token", prefix_tokens=2))


def two_tokens() -> TaskModel:
    torch.manual_seed(0)
    return Backbone(TWO_TOKENS, weights=False).adapt(3, labels=NAMES)


TASKS = (with_light(33), with_light(13, 1))
UNLABELLED = images(9, seed=4)[0]
TARGET = images(24, seed=5)[0] // 2  # whole steps of FixMatch, none of which takes a sample twice
ANIL: dict[str, Any] = {"recipe": None, "epochs": 4, "batch_size": 16}
CASES: dict[str, Case] = {
    "distill": Case(lambda: Distill(taught(), unlabelled=UNLABELLED, weight=0.7)),
    "distill-features": Case(lambda: Distill(teacher(), weight=0, features="stage.1:stage.1", attention="stage.0,stage.2:stage.1")),
    "distill-token": Case(lambda: Distill(taught(), token="hard"), two_tokens, options={"optimizer": "sgd"}),
    "lwf": Case(lambda: LearnWithoutForgetting(plain(2, labels=("day", "night"), seed=0))),
    "distill-relations": Case(lambda: Distill(taught(), distance_weight=1.0, angle_weight=2.0, unlabelled=UNLABELLED)),
    "contrastive": Case(lambda: zoo.transfer.Contrastive(pairs="supcon"), options={"recipe": None, "epochs": 4}),
    "contrastive-cosine-texts": Case(
        lambda: zoo.transfer.Contrastive(), text, TEXTS, {"recipe": None, "epochs": 4, "batch_size": 12, "lr": 1e-3}
    ),
    # Keys of attention have no gradient in their biases, of which Adam would make steps.
    "flyp": Case(lambda: zoo.transfer.Flyp(), dual, options={"optimizer": "sgd", "lr": 0.1}),
    "flyp-sigmoid": Case(lambda: zoo.transfer.Flyp(), partial(dual, sigmoid=True), options={"optimizer": "sgd", "lr": 0.01}),
    "anil": Case(lambda: zoo.transfer.Maml(shots=2), options=ANIL),
    "cdan-e": Case(lambda: DomainAdaptation(TARGET, method="cdan-e", hidden=8, spectral=1e-4)),
    "jan": Case(lambda: DomainAdaptation(TARGET, method="jan"), partial(plain, head="mlp", hidden=4, dropout=0.0)),
    "source-free": Case(lambda: SourceFree(), trained_before),
    "fixmatch": Case(lambda: FixMatch(TARGET, threshold=0.35, ratio=2, strength=0), options={"augment": "light"}),
    "flexmatch": Case(lambda: FlexMatch(UNLABELLED, threshold=0.35, strength=0)),
    "simclr": Case(lambda: SimClr(projection_dim=6), options={"augment": "light"}),
    "dino": Case(lambda: Dino(local_views=2, prototypes=12, hidden=8, bottleneck=6), options={"augment": "light"}),
    "mae": Case(lambda: MaskedAutoencoder(decoder_width=32, decoder_depth=1), tokens, options={"optimizer": "sgd"}),
    # Adam would make steps of the rounding errors of gradients that are zero, those of the biases of keys.
    "mlm": Case(lambda: MaskedLanguage(mask_ratio=0.3), text, TEXTS, {"optimizer": "sgd"}),
    "multi-task": Case(lambda: MultiTask(task_weights={"kind": 2}), two_tasks, TASKS, {"recipe": "layer-decay"}),
    "multi-task-uncertain": Case(lambda: MultiTask(weighting="uncertainty", sampling="temperature"), two_tasks, TASKS),
    "multi-task-in-turn": Case(lambda: MultiTask(sampling="round-robin"), two_tasks, TASKS),
    "multi-task-surgery": Case(lambda: surgery, two_tasks, TASKS),
}

# Further variants of methods that share their objective with a case above.
SWEPT: dict[str, Case] = (
    {
        name: Case(partial(DomainAdaptation, TARGET, method=name, hidden=8))
        for name in ("source-only", "coral", "dan", "dann", "cdan", "mcc", "mdd", "pseudo-labels")
    }
    | {
        "adabn": Case(lambda: DomainAdaptation(TARGET, method="adabn"), with_norms, options={"freeze_bn": False}, ranks=False),
    }
    | {
        name: Case(partial(zoo.transfer.Maml, shots=2, adapt_groups=1, order=order), options=ANIL, ranks=False)
        for name, order in {"maml": "full", "maml-first": "first"}.items()
    }
)
