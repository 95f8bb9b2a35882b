"""The weights of classes in the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from zoo.errors import DataError, did_you_mean, fault_list
from zoo.tasks.task import Task


def class_weights(
    wanted: str | Mapping[str, float] | None, task: Task, targets: npt.NDArray[Any], classes: tuple[str, ...]
) -> Tensor | None:
    """Return one weight per class, or None; for ``balanced`` those of the task.

    Raises:
        DataError: If a mapping has unknown classes, or lacks some.
    """
    if wanted is None or not classes:
        return None
    if isinstance(wanted, str):
        return torch.tensor(task.class_weights(targets, classes), dtype=torch.float32)
    known = frozenset(classes)
    faults = [f"{name!r} is no class{did_you_mean(name, classes)}" for name in wanted if name not in known]
    faults += [f"{name!r} has no weight" for name in classes if name not in wanted]
    if faults:
        raise DataError(
            fault_list(f"class_weights does not fit the {len(classes)} classes", faults, "Give every class a weight, or 'balanced'")
        )
    return torch.tensor([wanted[name] for name in classes], dtype=torch.float32)
