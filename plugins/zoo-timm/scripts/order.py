"""In which order the leaf modules of layer groups first run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def first_runs(model: nn.Module, groups: Any, x: Tensor) -> list[tuple[int, str]]:
    """Return the group's index and the name of each module that holds tensors itself, in the order in which they first run."""
    owners: dict[nn.Module, tuple[int, str]] = {}
    for index, group in enumerate(groups):
        for name, module in group.modules():
            for path, leaf in module.named_modules(prefix=name):
                if leaf._parameters or leaf._buffers:
                    owners.setdefault(leaf, (index, path))
    order: dict[tuple[int, str], None] = {}

    def note(module: nn.Module, *_: Any) -> None:
        order.setdefault(owners[module])

    handles = [module.register_forward_pre_hook(note) for module in owners]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return list(order)


def out_of_order(model: nn.Module, groups: Any, x: Tensor) -> list[str]:
    """Return a line per group that runs after, or goes on running after, a later group has started."""
    order = first_runs(model, groups, x)
    faults, latest, by = [], -1, ""
    for index, name in order:
        if index < latest:
            faults.append(f"{name} of {groups[index].name} first runs after {by} of {groups[latest].name}")
        elif index > latest:
            latest, by = index, name
    ran = {index for index, _ in order}
    faults += [f"{group.name} has no module that runs" for index, group in enumerate(groups) if index not in ran]
    return faults
