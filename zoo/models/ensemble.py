"""Several models of one task whose predictions are averaged, used like one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zoo.data.dataset import ModelInputs
from zoo.declare import Text
from zoo.errors import OptionError, fault_list
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.trust.stale_calibration import current_calibration

Array = npt.NDArray[Any]


class Ensemble(TaskModel):
    """Models of one task with the same classes and inputs.

    ``evaluate``, ``predict``, ``predict_proba``, ``embed`` and their forms that write files work, and ``save``. What trains,
    calibrates or looks into a network (``fit``, ``plan``, ``calibrate``, ``freeze``, ``groups``, ``backbone``, ``head``) does not; take it
    of a member.

    Args:
        models: The members; they are not copied.

    Attributes:
        members: The members.
    """

    members: nn.ModuleList

    def __init__(self, models: Sequence[TaskModel]) -> None:
        nn.Module.__init__(self)
        check_alike(models)
        first = models[0]
        self.members = nn.ModuleList(models)
        self.spec, self.inputs, self.task = first.spec, first.inputs, first.task
        self.num_classes, self.labels = first.num_classes, first.labels
        self.thresholds = mean_thresholds([model.thresholds for model in models])
        self.head_name, self.head_options, self.plugin = first.head_name, dict(first.head_options), first.plugin
        self.pretrained, self.lora, self.frozen, self.trains, self.freeze_bn = first.pretrained, None, 0, "all", False
        self.calibration = None
        calibrations = [model.calibration and current_calibration(model.calibration, model.head) for model in models]
        self._temperatures = [1.0 if found is None else found.temperature for found in calibrations]
        self.trained_on = tuple(dict.fromkeys(digest for model in models for digest in model.trained_on))
        self.random_head_warning = next((each.random_head_warning for each in models if each.has_random_head), first.random_head_warning)

    @property
    def models(self) -> list[TaskModel]:
        """The members as a list."""
        return [member for member in self.members if isinstance(member, TaskModel)]

    @property
    def has_random_head(self) -> bool:
        """Whether a member's head still has the values that ``adapt`` drew."""
        return any(member.has_random_head for member in self.models)

    def forward(self, x: ModelInputs) -> Tensor:
        """Return logits whose probabilities are the mean of the members'; for a regression the mean of their outputs."""
        outputs = torch.stack([member(x).float() / each for member, each in zip(self.models, self._temperatures, strict=True)])
        pooled = mean_outputs(self.task, list(outputs.detach().cpu().numpy()))
        return torch.from_numpy(pooled).to(outputs.device)

    def embed_batch(self, x: ModelInputs) -> Tensor:
        """Return the pooled features of all members beside each other, ``(batch, members * dim)``."""
        return torch.cat([member.embed_batch(x) for member in self.models], dim=1)

    def train(self, mode: bool = True) -> Ensemble:
        """Set training mode of every member, in place."""
        nn.Module.train(self, mode)
        return self

    def fit(self, *_data: Any, **_options: Any) -> NoReturn:
        """Raise, as an ensemble does not train."""
        self._refuse("fit")

    def plan(self, *_data: Any, **_options: Any) -> NoReturn:
        """Raise, as an ensemble does not train."""
        self._refuse("plan")

    def calibrate(self, data: Any, **_options: Any) -> NoReturn:
        """Raise, as only a single model is calibrated."""
        self._refuse("calibrate")

    def freeze(self, upto: int | str) -> NoReturn:
        """Raise, as an ensemble does not train."""
        self._refuse("freeze")

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Save every member in a folder of its own; ``zoo.load(folder)`` gives the ensemble.

        Raises:
            OutputExistsError: If the folder exists and is not empty, unless ``overwrite``.
        """
        from zoo.saved.ensemble import save_ensemble

        return save_ensemble(self, Path(folder), overwrite=overwrite)

    def _refuse(self, what: str) -> NoReturn:
        raise OptionError(
            f"an ensemble has no {what}(); it is used as it is. Take one of its {len(self.members)} members: model.members[0]"
        )


def mean_thresholds(thresholds: Sequence[tuple[float, ...] | None]) -> tuple[float, ...] | None:
    """Return the mean of the thresholds of several models, of those that have some; None if none has."""
    chosen = [each for each in thresholds if each is not None]
    return tuple(np.mean(chosen, axis=0).tolist()) if chosen else None


def mean_outputs(task: str, outputs: Sequence[Array]) -> Array:
    """Return the outputs whose probabilities are the mean of those of several models; without probabilities the mean itself.

    Args:
        task: Name of the task.
        outputs: For each model ``(…, outputs)``, or for words an array of arrays ``(words, outputs)``.
    """
    if outputs[0].dtype == object:
        found = np.empty(len(outputs[0]), dtype=object)
        for row, each in enumerate(zip(*outputs, strict=True)):
            found[row] = mean_outputs(task, each) if len(each[0]) else each[0]
        return found
    pool, stacked = find_task(task).pool, np.stack([rows.reshape(-1, rows.shape[-1]) for rows in outputs])
    pooled = np.stack([pool(stacked[:, row]) for row in range(stacked.shape[1])])
    return pooled.astype(np.float32).reshape(outputs[0].shape)


def check_alike(models: Sequence[TaskModel]) -> None:
    """Check that models can be averaged: at least two, of one task, with the same classes and inputs.

    Raises:
        OptionError: Naming all differences.
    """
    if len(models) < 2:
        raise OptionError(f"an ensemble takes two models or more, and {len(models)} is given")
    first, faults = models[0], []
    for number, model in enumerate(models[1:], 1):
        for name in ("task", "num_classes", "labels"):
            ours, theirs = getattr(first, name), getattr(model, name)
            if ours != theirs:
                faults.append(f"model {number}: {name} is {theirs!r}, and that of model 0 is {ours!r}")
        if _plain(model) != _plain(first):
            faults.append(f"model {number} reads {_plain(model)!r}, and model 0 reads {_plain(first)!r}")
    if faults:
        raise OptionError(fault_list("these models cannot be averaged:", faults[:8]))


def _plain(model: TaskModel) -> Any:
    """Return the declared input without the place of a tokenizer's files."""
    return replace(model.inputs, files="") if isinstance(model.inputs, Text) else model.inputs
