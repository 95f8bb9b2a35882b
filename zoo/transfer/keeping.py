"""The objective of learning without forgetting: the labels of a new task, and the outputs of an old model."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch
from zoo.engine.cache.forward import Forward
from zoo.engine.runtime.launch_env import rank
from zoo.engine.train.supervised import Supervised
from zoo.errors import OptionError, OutputExistsError, fault_list
from zoo.models.heads import Pool
from zoo.models.task_model import TaskModel
from zoo.saved.load import load
from zoo.tasks.find import find_task
from zoo.transfer.beside_labels import BesideLabels
from zoo.transfer.distillation.losses import soft_labels, soft_targets

_TASKS = ("single-label", "multi-label")


def keeping(base: Supervised, old: Any, *, temperature: float, weight: float, keep: str | os.PathLike[str] | None) -> Keeping:
    """Return the objective of a model that is not to forget; see ``zoo.transfer.LearnWithoutForgetting`` for the options and errors."""
    old = old if isinstance(old, TaskModel) else load(old)
    if faults := _faults(base.model, old):
        raise OptionError(fault_list("the old task cannot be kept:", faults))
    folder = None if keep is None else Path(keep)
    if folder is not None and folder.exists():
        raise OutputExistsError(f"keep: {str(folder)!r} exists; give a new folder for the old task's model")
    return Keeping(base, old, temperature=temperature, weight=weight, folder=folder)


class Keeping(BesideLabels):
    """The labels of the new task, and the outputs of the old model.

    Args:
        base: The objective of the labels.
        old: The old model.
        temperature: What the logits are divided by.
        weight: Of the old task beside the labels.
        folder: Where the old task's model is saved at the end, or None.

    Attributes:
        old_head: The head of the old task, which trains.
    """

    name = "lwf"

    def __init__(self, base: Supervised, old: TaskModel, *, temperature: float, weight: float, folder: Path | None) -> None:
        super().__init__(base, base.sources)
        self._old, self._temperature, self._weight, self._folder = old, temperature, weight, folder
        self._gap = soft_targets if find_task(old.task).exclusive else soft_labels
        self.frozen = {"old": old}
        self.old_head = copy.deepcopy(old.head).requires_grad_(True)
        self.module = nn.ModuleDict({"model": base.model, "old_head": self.old_head})

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the sum of the losses of both tasks."""
        one = batch["train"]
        assert one.frozen is not None, "the old model is frozen"
        features = forward.features(one.x)
        with forward.autocast():
            logits: Tensor = self.old_head.logits(features)  # type: ignore[operator]  # checked before
        kept = self._gap(logits.float(), one.frozen["old"].float(), self._temperature).sum()
        return self.base.label_loss(forward.logits(features), one.y) + self._weight * self.share * kept

    def active(self) -> AbstractContextManager[None]:
        """Save the old task's model at the end of a run."""
        return self._saved()

    @contextmanager
    def _saved(self) -> Iterator[None]:
        yield
        if self._folder is None or rank():
            return
        ours, before = self.model.backbone, self._old.backbone
        if all(torch.equal(one, other) for one, other in zip(ours.parameters(), before.parameters(), strict=True)):
            return  # a plan, or a probe: the old model is what it was
        kept = copy.deepcopy(self._old)
        kept.backbone.load_state_dict(ours.state_dict())
        kept.head.load_state_dict(self.old_head.state_dict())
        kept.save(self._folder)


def _faults(model: TaskModel, old: TaskModel) -> list[str]:
    faults = []
    if old.task not in _TASKS:
        faults.append(f"old: its task is {old.task}; it must be {' or '.join(_TASKS)}")
    if model.lora is not None:
        faults.append("recipe: LoRA leaves the backbone as it is until it is merged; take another recipe")
    elif not hasattr(old, "groups"):
        faults.append("old: it is an ensemble; give one of its members")
    else:
        ours, theirs = model.backbone.state_dict(), old.backbone.state_dict()
        same = ours.keys() == theirs.keys() and all(torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in ours)
        if not same:
            faults.append("old: the model does not start from its backbone; build it with zoo.get(FOLDER).adapt(…) of the saved old one")
        pools = [getattr(getattr(each.head, "pool", None), "how", None) for each in (model, old)]
        if not hasattr(old.head, "logits") or not isinstance(getattr(old.head, "pool", None), Pool) or pools[0] != pools[1]:
            faults.append(f"old: its head reads features by {pools[1]!r}, and the new one by {pools[0]!r}; give both the same pool")
    if model is old:
        faults.append("old: it is the model itself; give the folder where it is saved, or a copy")
    return faults
