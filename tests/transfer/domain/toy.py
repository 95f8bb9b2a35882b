"""Two domains of small images: in the source two channels tell the class, in the target the louder of them says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import zoo
from tests.engine.rank_work import plain
from zoo.engine.rundir.run_folder import Run
from zoo.models.task_model import TaskModel

NAMES = ("dark", "light")


def domain(count: int, seed: int, *, target: bool = False) -> tuple[Any, list[str]]:
    """Return images whose second channel is the class; the first is it too in the source, and always that of ``light`` in the target."""
    source = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    levels = np.full((count, 3), 128.0)
    levels[:, 0] = 195 if target else 60 + 135 * classes
    levels[:, 1] = 90 + 75 * classes
    levels += source.normal(0, 8, levels.shape)
    pixels = levels[:, None, None] + source.normal(0, 20, (count, 16, 16, 3))
    return pixels.clip(0, 255).astype(np.uint8), [NAMES[one] for one in classes]


SOURCE, VALID = domain(64, 0), domain(32, 1)
TARGET, TEST = domain(64, 2, target=True), domain(64, 3, target=True)


def adapted(out: Path, method: str, *, epochs: int = 8, seed: int = 0, resume: bool = False, **options: Any) -> tuple[TaskModel, Run]:
    """Return a model adapted from the source to the target, and its run."""
    net = plain(2, head="mlp", hidden=16, dropout=0.0)
    how: dict[str, Any] = {"recipe": "full", "batch_size": 16, "lr": 1e-2, "augment": "none", "workers": 0, "quiet": True}
    objective = zoo.transfer.DomainAdaptation(TARGET[0], method=method, **options)
    return net, net.fit(SOURCE, VALID, out=out, objective=objective, epochs=epochs, seed=seed, resume=resume, **how)


def nearer(count: int, seed: int) -> tuple[Any, list[str]]:
    """Return images of a target in which the first channel still says a little, so that predictions start above chance."""
    source = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    levels = np.stack([165 + 15 * classes, 90 + 75 * classes, np.full(count, 128)], axis=1) + source.normal(0, 8, (count, 3))
    pixels = levels[:, None, None] + source.normal(0, 20, (count, 16, 16, 3))
    return pixels.clip(0, 255).astype(np.uint8), [NAMES[one] for one in classes]
