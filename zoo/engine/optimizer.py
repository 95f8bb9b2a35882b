"""The optimizer of a run, and its state under the names of the parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from zoo.adapter import TaskModel
from zoo.engine.config import Config
from zoo.errors import SavedModelError, examples
from zoo.tuning import param_groups


def build_optimizer(model: TaskModel, config: Config, device: torch.device) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) over every parameter of the model; fused on a GPU.

    Frozen parameters are in it from the start: they have no gradient, so torch skips them, and a later phase only flips
    ``requires_grad``.
    """
    groups = param_groups(model.groups, model.head, lr=config.lr, layer_decay=config.layer_decay, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, fused=device.type == "cuda")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as ``parameter:key`` -> tensor."""
    return {
        f"{name}:{key}": value
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` gave, in place.

    Raises:
        SavedModelError: If the state belongs to parameters that this model does not have.
    """
    by_name: dict[str, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        name, _, key = full.rpartition(":")
        by_name.setdefault(name, {})[key] = value
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            for key, value in by_name.pop(name, {}).items():
                if key == "step":  # AdamW keeps its step count on the CPU unless it is fused
                    home = parameter.device if group.get("fused") else torch.device("cpu")
                    optimizer.state[parameter][key] = value.to(home, copy=True)
                else:  # fused AdamW refuses moments whose memory format is not the parameter's
                    optimizer.state[parameter][key] = torch.empty_like(parameter.detach(), dtype=value.dtype).copy_(value)
    if by_name:
        raise SavedModelError(
            f"the checkpoint has optimizer state for parameters that the model does not have: {examples(sorted(by_name))}"
        )
