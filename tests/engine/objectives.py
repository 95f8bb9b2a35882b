"""Three objectives from outside the engine: a frozen teacher, a second source, a second view. None needs a change in the engine."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo import Batch, Objective, Source, Supervised, TaskModel
from zoo.data.table import Table


class Embedding(nn.Module):
    """The pooled features of a model, as a module."""

    def __init__(self, model: TaskModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any) -> Tensor:
        return self.model.embed_batch(x)


class Distilled(Objective):
    """Labels, and features that a trained projector brings close to those of a frozen teacher (FitNets, Romero et al. 2015)."""

    name = "distilled"

    def __init__(self, base: Supervised, teacher: TaskModel) -> None:
        super().__init__(base.model, base.sources, base.valid, monitor=base.monitor)
        self.weight, self.validate = base.weight, base.validate  # type: ignore[method-assign]
        self.base, self.frozen = base, {"teacher": Embedding(teacher)}
        self.projector = nn.Linear(8, 8)
        self.module = nn.ModuleDict({"model": base.model, "projector": self.projector})

    def loss(self, forward: Any, batch: Mapping[str, Batch]) -> Tensor:
        one = batch["train"]
        assert one.frozen is not None
        features = forward.features(one.x)
        distance = (self.projector(features) - one.frozen["teacher"]).square().mean(1).sum()
        return self.base.label_loss(forward.logits(features), one.y) + distance


class Coral(Objective):
    """Labels of one source, and covariances that must be those of another without labels (Deep CORAL, Sun & Saenko 2016)."""

    name, separable = "coral", False

    def __init__(self, base: Supervised, target: Table) -> None:
        super().__init__(base.model, base.sources | {"target": Source(target)}, base.valid, monitor=base.monitor)
        self.weight, self.validate, self.base = base.weight, base.validate, base  # type: ignore[method-assign]

    def loss(self, forward: Any, batch: Mapping[str, Batch]) -> Tensor:
        own, other = (forward.features(batch[name].x) for name in ("train", "target"))
        logits, y = forward.gather(forward.logits(own)), forward.gather(batch["train"].y)
        own, other = forward.gather(own), forward.gather(other)
        gap = (torch.cov(own.T) - torch.cov(other.T)).square().sum() / (4 * own.shape[1] ** 2)
        return self.base.label_loss(logits, y) + len(y) * gap


class Momentum(Objective):
    """Two views of an image whose features agree, one of them a momentum copy's (BYOL, Grill et al. 2020)."""

    name, pooled, cache_obstacle = "momentum", False, "the momentum copy needs the inputs"

    def __init__(self, base: Supervised) -> None:
        super().__init__(base.model, {"train": Source(base.sources["train"].table, views=2)}, base.valid, monitor=base.monitor)
        self.validate, self.copy = base.validate, copy.deepcopy(base.model).requires_grad_(False)  # type: ignore[method-assign]
        self.predictor, self.moves = nn.Linear(8, 8), 0
        self.module = nn.ModuleDict({"model": base.model, "predictor": self.predictor, "copy": self.copy})

    def loss(self, forward: Any, batch: Mapping[str, Batch]) -> Tensor:
        with torch.no_grad():
            wanted = self.copy.embed_batch(batch["train"].views[0])
        found = self.predictor(forward.features(batch["train"].x))
        return (1 - functional.cosine_similarity(found, wanted)).sum()

    def after_step(self) -> None:
        self.moves += 1
        decay = 1 - 1 / (1 + self.moves)
        with torch.no_grad():
            for mine, theirs in zip(self.copy.parameters(), self.model.parameters(), strict=True):
                mine.lerp_(theirs, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"moves": self.moves}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.moves = int(state["moves"])
