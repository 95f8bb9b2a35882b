"""The objective of learning without forgetting: the labels of a new task, and the outputs of an old model."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch
from zoo.engine.cache.forward import Forward
from zoo.engine.distributed.rank_consistency import fingerprint
from zoo.engine.loading.sources import table_digest
from zoo.engine.objective.supervised import Supervised
from zoo.errors import OptionError, OutputExistsError, OutputPermissionError, fault_list
from zoo.models.pooling import Pool
from zoo.models.task_model import TaskModel
from zoo.saved.load import load
from zoo.saved.save import writing
from zoo.tasks.find import find_task
from zoo.transfer.beside_labels import BesideLabels
from zoo.transfer.distillation.losses import soft_labels, soft_targets
from zoo.util.atomic_write import is_file, write_text

MARK = "kept-by.txt"  # in the folder of the old task's model
_TASKS = ("single-label", "multi-label")


def keeping(base: Supervised, old: Any, *, temperature: float, weight: float, keep: str | os.PathLike[str] | None) -> Keeping:
    """Return the objective of a model that is not to forget; see ``zoo.transfer.LearnWithoutForgetting`` for the options and errors."""
    old = old if isinstance(old, TaskModel) else load(old)
    if faults := _faults(base.model, old):
        raise OptionError(fault_list("the old task cannot be kept:", faults))
    folder, mark = None if keep is None else Path(keep), _mark_of(base, old)
    if folder is not None:
        _check_folder(folder, mark)
    return Keeping(base, old, temperature=temperature, weight=weight, folder=folder, mark=mark)


class Keeping(BesideLabels):
    """The labels of the new task, and the outputs of the old model.

    Args:
        base: The objective of the labels.
        old: The old model.
        temperature: What the logits are divided by.
        weight: Of the old task beside the labels.
        folder: Where the old task's model is saved at the end, or None.
        mark: Text that the folder holds, the same for a run that is resumed.

    Attributes:
        old_head: The head of the old task, which trains.
    """

    name = "lwf"

    def __init__(self, base: Supervised, old: TaskModel, *, temperature: float, weight: float, folder: Path | None, mark: str) -> None:
        super().__init__(base, base.sources)
        self._old, self._temperature, self._weight = old, temperature, weight
        self._folder, self._mark = folder, mark
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

    def save_beside(self) -> None:
        """Save the old task's model, with the mark by which the same run, resumed, may save it again."""
        if self._folder is None:
            return
        kept = copy.deepcopy(self._old).cpu()
        kept.backbone.load_state_dict(self.model.backbone.state_dict())
        kept.head.load_state_dict(self.old_head.state_dict())
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_text(self._folder / MARK, self._mark)
        kept.save(self._folder, overwrite=True)


def _mark_of(base: Supervised, old: TaskModel) -> str:
    """Return a text that tells runs of other data, options or old models apart."""
    parts = (base.config.model_dump_json(), fingerprint(old), table_digest(base.sources["train"].table))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest() + "\n"


def _check_folder(folder: Path, mark: str) -> None:
    """Check, before anything trains, that the old task's model can be saved at the end.

    Raises:
        OutputExistsError: If the folder exists, unless this run saved into it before it was interrupted.
        OutputPermissionError: If it may not be written.
    """
    if folder.exists() and not (is_file(folder / MARK) and (folder / MARK).read_text(encoding="utf-8") == mark):
        raise OutputExistsError(f"keep: {str(folder)!r} exists; give a new folder for the old task's model")
    place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise OutputPermissionError(f"keep: {str(folder)!r} cannot be written, as {str(place)!r} is no folder that may be; give another")


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
