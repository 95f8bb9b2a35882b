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
def sharded(model: Model, processes: int, device: torch.device, *, half: bool = False) -> Iterator[Model]:
    """Yield a sharded copy of a model; the model itself stays on the CPU, and gets the trained values at the end.

    A collective, to be called with equal values, as is every forward and backward of the copy.

    Args:
        model: A ``TaskModel``, after everything that changes its modules (freezing, LoRA, recompute).
        processes: Number of ranks.
        device: Device of the copy.
        half: Whether its forward passes compute in bf16; see ``shard``.
    """
    home = next((parameter.device for parameter in model.parameters()), device)
    model.to("cpu")
    copied = copy_without_values(model)  # FSDP replaces the parameters for good
    shard(copied, copied.groups, processes, device, half=half)  # type: ignore[arg-type]  # a TaskModel, whose class is on a higher floor
    buffers = [(module, name, buffer) for module in copied.modules() for name, buffer in module._buffers.items() if buffer is not None]
    copied.to_empty(device=device)
    for module, name, buffer in buffers:  # with those that are not part of the state
        module._buffers[name] = buffer.to(device)
    load_values(copied, model.state_dict())
    try:
        yield copied
        model.load_state_dict(full_tensors(copied.state_dict()))
    finally:
        model.to(home)


def copy_without_values(model: Model) -> Model:
    """Return a copy of a model whose parameters have no values and take no memory; buffers are copied."""
    plain = torch.contiguous_format  # FSDP takes no parameters whose memory format is another one
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta", memory_format=plain), parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, memo)


def shard(model: nn.Module, groups: LayerGroups, processes: int, device: torch.device, *, half: bool = False) -> None:
    """Shard the parameters of a model, in place: a unit per layer group, and one for the head and the rest.

    Gradients are summed over the ranks, not averaged.

    Args:
        model: The model.
        groups: Its layer groups.
        processes: Number of ranks.
        device: Device of the ranks.
        half: Whether they compute in bf16. Parameters are then gathered in bf16, which is half of what is sent; each process keeps
            its part of them in float32, and gradients are added up in float32. A model with running
            statistics (BatchNorm) is gathered in float32: they stay in float32, and torch takes no other type beside them.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    narrow = half and all(getattr(module, "running_mean", None) is None for module in model.modules())
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if narrow else MixedPrecisionPolicy()
    for index in range(len(groups)):
        parts = list(blocks(groups[index : index + 1]).values())
        if parts:
            fully_shard(parts, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
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
            found[name] = value.cpu() if is_sharded(tensor) else value
    return found


def gathered(tensor: Any) -> Tensor:
    """Return a full tensor on its device; a plain one unchanged. A collective."""
    if not is_sharded(tensor):
        return tensor  # type: ignore[no-any-return]  # a plain tensor
    full = tensor.detach().full_tensor()
    waited: Tensor = full.wait() if hasattr(full, "wait") else full  # may still be asynchronous
    return waited


def load_values(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Load full values into a model that may be sharded, in place."""
    own = model.state_dict()
    if not any(map(is_sharded, own.values())):
        model.load_state_dict(values)
        return
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(part_of(values[name], tensor))


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """Return this rank's shard of a full tensor, sharded like another one; all of it if that one is plain."""
    if not is_sharded(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    held: Any = like
    return distribute_tensor(value.to(held.device), held.device_mesh, held.placements, src_data_rank=None)


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is sharded."""
    return hasattr(tensor, "full_tensor")
