"""In which order the leaf modules of layer groups first run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class FirstUses(TorchDispatchMode):
    """Notes the group of each parameter and buffer when an operation first reads it, whoever reads it."""

    def __init__(self, owners: dict[int, int]) -> None:
        super().__init__()
        self.owners = owners
        self.order: list[int] = []
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        for value in torch.utils._pytree.tree_leaves((args, kwargs)):
            key = id(value)
            if key in self.owners and key not in self.seen:
                self.seen.add(key)
                self.order.append(self.owners[key])
        return func(*args, **(kwargs or {}))


def out_of_order(model: nn.Module, groups: Any, x: Tensor) -> list[str]:
    """Return a line per group that runs after, or goes on running after, a later group has started."""
    owners: dict[int, int] = {}
    names: dict[int, str] = {}
    order: list[tuple[int, str]] = []
    handles = []
    for index, group in enumerate(groups):
        for name, module in group.modules():
            for path, leaf in module.named_modules(prefix=name):
                if any(True for _ in leaf.parameters(recurse=False)) or any(True for _ in leaf.buffers(recurse=False)):
                    owners.setdefault(id(leaf), index)
                    names.setdefault(id(leaf), path)
    seen: set[int] = set()

    def note(module: nn.Module, *_: Any) -> None:
        if id(module) not in seen:
            seen.add(id(module))
            order.append((owners[id(module)], names[id(module)]))

    for module in model.modules():
        if id(module) in owners:
            handles.append(module.register_forward_pre_hook(note))
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    faults, latest, by = [], -1, ""
    for index, name in order:
        if index < latest:
            faults.append(f"{name} of {groups[index].name} first runs after {by} of {groups[latest].name}")
        elif index > latest:
            latest, by = index, name
    ran = {index for index, _ in order}
    faults += [f"{group.name} has no module that runs" for index, group in enumerate(groups) if index not in ran]
    return faults
