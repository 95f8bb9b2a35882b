"""The objective of a student: the loss of its labels, and what it learns from a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.data.dataset import Batch
from zoo.engine.cache.activation_cache import CachedInputs
from zoo.engine.cache.forward import Forward
from zoo.engine.loading.stream import Source
from zoo.engine.objective.supervised import Supervised
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import shortest_frozen_prefix
from zoo.transfer.beside_labels import BesideLabels
from zoo.transfer.distillation.classes import Shared
from zoo.transfer.distillation.feature_maps import on_grid, project
from zoo.transfer.distillation.losses import angle_relations, attention_gap, distance_relations, hint, soft_labels, soft_targets
from zoo.transfer.distillation.options import DistillOptions
from zoo.transfer.distillation.pairs import Pairs
from zoo.transfer.distillation.teacher import TeacherRows, map_of, tapped_groups

_UNFREEZE = "take a recipe that trains them (recipe='full'), or freeze fewer"


@dataclass(frozen=True)
class Parts:
    """The teacher, the data and the compared layers of a distillation.

    Attributes:
        sources: The training data by name.
        classes: Which logits are compared.
        teacher: Gives the teacher's outputs, or None where they are known.
        features: Pairs of layer groups whose features are compared.
        attention: Pairs whose attention is compared.
        grids: The grid of each pair, those of ``features`` first.
        projections: From the student's channels to the teacher's, for each pair of ``features``.
        kept: The teacher's logits for all samples of each source, where they are known.
    """

    sources: Mapping[str, Source]
    classes: Shared
    teacher: TeacherRows | None = None
    features: Pairs = ()
    attention: Pairs = ()
    grids: tuple[tuple[int, ...], ...] = ()
    projections: nn.ModuleList = field(default_factory=nn.ModuleList)
    kept: Mapping[str, Tensor] = field(default_factory=dict)


class Distilling(BesideLabels):
    """The labels, and the outputs of a teacher; see ``Distill``.

    Args:
        base: The objective of the labels.
        method: The options.
        parts: The teacher and what is compared.
    """

    name = "distill"

    def __init__(self, base: Supervised, method: DistillOptions, parts: Parts) -> None:
        super().__init__(base, parts.sources)
        self.separable = not (method.distance_weight or method.angle_weight)
        self._method, self._parts = method, parts
        self._places = torch.tensor(parts.classes.student)
        if parts.teacher is not None:
            self.frozen = {"teacher": parts.teacher}
        further: dict[str, nn.Module] = {"projections": parts.projections} if len(parts.projections) else {}
        self._token_head = nn.Linear(base.model.spec.features.dim, len(parts.classes.student)) if method.token else None
        if self._token_head is not None:
            further["token_head"] = self._token_head
        if further:
            self.module = nn.ModuleDict({"model": base.model, **further})

    def faults(self, config: Config) -> list[str]:
        """Return the pairs and the token that never train, and a recipe that forgets at its end what the teacher taught."""
        groups, parts, faults = self.model.groups, self._parts, []
        frozen = shortest_frozen_prefix(config, groups, self.model.frozen)
        for name, pairs in (("features", parts.features), ("attention", parts.attention)):
            if still := [f"{one}:{other}" for one, other in pairs if groups[one].index < frozen]:
                faults.append(f"{name}: the student's groups of {', '.join(still)} never train; {_UNFREEZE}")
        if self._method.token and frozen == len(groups):
            faults.append(f"token: the backbone never trains, so its distillation token learns nothing; {_UNFREEZE}")
        phases = config.recipe.phases
        if self._method.weight and phases[-1].solve and self.can_solve(config):
            remedy = "take a recipe that ends otherwise, or solve_head=False"
            faults.append(f"recipe: {config.recipe.name!r} ends with the optimum of the labels, in place of the head taught; {remedy}")
        return faults

    def can_solve(self, config: Config) -> bool:
        """Return whether the head can start from the optimum of its labels; not where the labels are left out."""
        return self._method.weight != 1 and super().can_solve(config)

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the sum of the losses of the labels, and of the differences from the teacher for all sources."""
        return torch.stack([self._loss_of(forward, name, batch[name]) for name in self.sources]).sum()

    def _loss_of(self, forward: Forward, name: str, one: Batch) -> Tensor:
        with self._tapped() as tapped:
            logits, features = self._outputs(forward, one.x)
        with forward.autocast():
            each = self._differences(forward, name, one, logits.float(), tapped)
        if self.separable:
            total = each.sum() * self.share
            labels, y = logits, one.y
        else:
            total = (forward.gather(each).sum() + self._relations(forward, name, one, features)) * self.share
            labels, y = (forward.gather(logits), forward.gather(one.y)) if name == "train" else (logits, one.y)
        if name != "train" or self._method.weight == 1:
            return total
        return total + (1 - self._method.weight) * self.base.label_loss(labels, y)

    def _outputs(self, forward: Forward, x: Any) -> tuple[Tensor, Tensor | None]:
        if self.separable:
            return forward(x), None
        features = forward.features(x)
        return forward.logits(features), features

    def _tapped(self) -> AbstractContextManager[dict[str, Any]]:
        """Record the outputs of the groups that are compared and train; the outputs of frozen ones are fixed."""
        groups = self.model.groups
        names = [one for one, _ in self._parts.features + self._parts.attention if groups[one].index >= self.model.frozen]
        if self._method.token and self.model.frozen < len(groups):
            names.append(groups[-1].name)
        return tapped_groups(self.model, names)

    def _differences(self, forward: Forward, name: str, one: Batch, logits: Tensor, tapped: Mapping[str, Any]) -> Tensor:
        """Return the weighted differences from the teacher, one value per sample."""
        method, parts, x = self._method, self._parts, one.x.x if isinstance(one.x, CachedInputs) else one.x
        outputs = self._teacher_of(name, one)
        total = logits.new_zeros(len(logits))
        if method.weight:
            total = total + method.weight * self._logit_gap(logits, outputs.pop(0), one, tapped)
        outputs = outputs[len(outputs) - len(parts.grids) :]
        for number, (pair, wanted) in enumerate(zip(parts.features + parts.attention, outputs, strict=True)):
            if pair[0] not in tapped:
                continue
            found = on_grid(map_of(self.model, tapped, pair[0], x), parts.grids[number])
            if number < len(parts.features):
                total = total + method.feature_weight * hint(project(parts.projections[number], found).float(), wanted)
            else:
                total = total + method.attention_weight * attention_gap(found.float(), wanted)
        return total

    def _teacher_of(self, name: str, one: Batch) -> list[Tensor]:
        if self._parts.teacher is None:
            return [self._parts.kept[name][torch.tensor(one.indices)].to(one.y.device)]
        assert one.frozen is not None, "the teacher is a frozen module"
        return self._parts.teacher.outputs(one.frozen["teacher"])

    def _logit_gap(self, logits: Tensor, teacher: Tensor, one: Batch, tapped: Mapping[str, Any]) -> Tensor:
        method, task, places = self._method, self.base.task, self._places.to(logits.device)
        if not task.has_classes:
            return functional.mse_loss(logits, self.base.in_training_units(teacher), reduction="none").mean(1)
        if not task.exclusive:
            return soft_labels(logits[:, places], teacher, method.temperature)
        known = torch.isin(one.y, places) | (one.y < 0)  # the teacher has no logit for other classes
        found = logits[:, places]
        if self._token_head is not None:
            if self.model.groups[-1].name not in tapped:
                return torch.zeros_like(known, dtype=torch.float32)
            found = self._token_head(tapped[self.model.groups[-1].name][:, 1]).float()
        if method.token == "hard":
            return functional.cross_entropy(found, teacher.argmax(1), reduction="none") * known
        return soft_targets(found, teacher, method.temperature) * known

    def _relations(self, forward: Forward, name: str, one: Batch, features: Tensor | None) -> Tensor:
        """Return the differences of the relations in the batch of all ranks, times its samples."""
        assert features is not None, "relations are between pooled features"
        method = self._method
        wanted = forward.gather(self._teacher_of(name, one)[1 if method.weight else 0])
        found = forward.gather(features)
        total = found.new_zeros(())
        if method.distance_weight:
            total = total + method.distance_weight * distance_relations(found, wanted)
        if method.angle_weight:
            total = total + method.angle_weight * angle_relations(found, wanted)
        return total * len(found)
