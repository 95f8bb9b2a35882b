"""Sharding: each rank holds a part of every parameter, gradient and optimizer state (FSDP2; Rajbhandari et al. 2020)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zoo.models.layers import LayerGroups
from zoo.tuning.blocks import blocks

Model = TypeVar("Model", bound=nn.Module)


@contextmanager
def sharded(model: Model, processes: int, device: torch.device) -> Iterator[Model]:
    """Yield a sharded copy of a model; the model itself stays on the CPU, and gets the trained values at the end.

    A collective, to be called with equal values, as is every forward and backward of the copy.

    Args:
        model: A ``TaskModel``, after everything that changes its modules (freezing, LoRA, recompute).
        processes: Number of ranks.
        device: Device of the copy.
    """
    home = next((parameter.device for parameter in model.parameters()), device)
    model.to("cpu")
    # A copy, because FSDP replaces the parameters for good. It needs contiguous parameters.
    shared = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    for buffer_holder in shared.modules():
        for name, buffer in buffer_holder._buffers.items():
            buffer_holder._buffers[name] = None if buffer is None else buffer.to(device)
    shard(shared, shared.groups, processes, device)  # type: ignore[arg-type]  # a TaskModel, whose class is on a higher floor
    try:
        yield shared
        model.load_state_dict(full_tensors(shared.state_dict()))
    finally:
        model.to(home)


def shard(model: nn.Module, groups: LayerGroups, processes: int, device: torch.device) -> None:
    """Shard the parameters of a model, in place: a unit per layer group, and one for the head and the rest.

    Gradients are summed over the ranks, not averaged.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    for index in range(len(groups)):
        parts = list(blocks(groups[index : index + 1]).values())
        if parts:
            fully_shard(parts, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # the only one that gloo has


def full_tensors(tensors: Mapping[str, Tensor], *, keep: bool = True) -> dict[str, Tensor]:
    """Return full tensors on the CPU; plain ones unchanged. A collective.

    A rank that does not ``keep`` them gets nothing, and has one of them in memory at a time.
    """
    found = {}
    for name, tensor in tensors.items():
        value = gathered(tensor)
        if keep:
            found[name] = value.cpu() if is_shared(tensor) else value
    return found


def gathered(tensor: Any) -> Tensor:
    """Return a full tensor on its device; a plain one unchanged. A collective."""
    if not is_shared(tensor):
        return tensor  # type: ignore[no-any-return]  # a plain tensor
    full = tensor.detach().full_tensor()
    waited: Tensor = full.wait() if hasattr(full, "wait") else full  # may still be asynchronous
    return waited


def load_values(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Load full values into a model that may be sharded, in place."""
    own = model.state_dict()
    if not any(map(is_shared, own.values())):
        model.load_state_dict(values)
        return
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(part_of(values[name], tensor))


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """Return this rank's shard of a full tensor, sharded like another one; all of it if that one is plain."""
    if not is_shared(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    held: Any = like
    return distribute_tensor(value.to(held.device), held.device_mesh, held.placements, src_data_rank=None)


def is_shared(tensor: Tensor) -> bool:
    """Return whether a tensor is sharded."""
    return hasattr(tensor, "full_tensor")
