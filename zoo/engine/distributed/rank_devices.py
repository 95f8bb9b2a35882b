"""The device of each rank, agreed on before the process group exists."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from zoo.engine.runtime.device import choose_device
from zoo.errors import OptionError, fault_list

_REMEDY = (
    "Start one process for each GPU (torchrun --nproc-per-node, zoo train --num-processes), or show each process a GPU of its own "
    "(srun --gpus-per-task=1, CUDA_VISIBLE_DEVICES), or train on the CPU with device='cpu'"
)


def gpu_of_rank() -> int:
    """Return the index of this rank's GPU among those that this process sees.

    If the launcher lets every process see all GPUs of the machine, as torchrun does, it is the local rank. If each process sees
    only its own, as with ``srun --gpus-per-task=1``, it is 0.

    Raises:
        OptionError: If there is no such GPU.
    """
    local, visible = int(os.environ.get("LOCAL_RANK") or 0), torch.cuda.device_count()
    if visible == 1:
        return 0
    if local >= visible:
        limit = os.environ.get("CUDA_VISIBLE_DEVICES")
        within = "" if limit is None else f" (CUDA_VISIBLE_DEVICES={limit})"
        raise OptionError(f"the process with local rank {local} has no GPU, as it sees {visible} of them{within}")
    return local


def agree_on_devices(store: Any, rank: int, count: int, wanted: str) -> bool:
    """Set this rank's GPU as the current device; return whether the ranks train on CUDA.

    Devices are exchanged through the launcher's store, because a rank without a GPU cannot join a collective.

    Args:
        store: Empty store that all ranks see.
        rank: Number of this process.
        count: Number of ranks.
        wanted: Device, as for ``choose_device``.

    Raises:
        OptionError: On every rank, if one has no device, if their devices differ in type, or if some share a GPU.
        RuntimeError: If a rank does not answer within the timeout of the store.
    """
    mine = {"fault": ""}
    try:
        mine["type"] = choose_device(wanted).type
        if mine["type"] == "cuda":
            gpu = gpu_of_rank()
            torch.cuda.set_device(gpu)  # NCCL, FSDP and Accelerate's "cuda" take the current device
            mine["uuid"] = str(getattr(torch.cuda.get_device_properties(gpu), "uuid", ""))  # not every build of torch knows it
    except (OptionError, RuntimeError) as error:  # CUDA raises RuntimeErrors for a GPU that is busy or broken
        mine["fault"] = str(error).partition("\n")[0]
    store.set(f"device/{rank}", json.dumps(mine))
    faults = _device_faults([json.loads(store.get(f"device/{other}")) for other in range(count)])
    if faults:
        raise OptionError(fault_list(f"{count} processes cannot train together:", faults, _REMEDY))
    return mine["type"] == "cuda"


def _device_faults(devices: Sequence[Mapping[str, str]]) -> list[str]:
    """Return why ranks cannot train together.

    Args:
        devices: For each rank ``fault``, empty or why it has no device; ``type`` of its device; for CUDA, ``uuid`` of its GPU, empty
            if unknown.
    """
    faults = [f"rank {rank}: {device['fault']}" for rank, device in enumerate(devices) if device["fault"]]
    types = _ranks_by([device.get("type", "") for device in devices])
    if len(types) > 1:
        faults.append("; ".join(f"{_numbered(ranks)} would train on {name}" for name, ranks in types.items()))
    gpus = _ranks_by([device.get("uuid", "") for device in devices])
    return faults + [f"{_numbered(ranks)} share GPU {name}" for name, ranks in gpus.items() if len(ranks) > 1]


def _ranks_by(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the ranks of each name, without those whose name is empty."""
    ranks: dict[str, list[int]] = {}
    for rank, name in enumerate(names):
        if name:
            ranks.setdefault(name, []).append(rank)
    return ranks


def _numbered(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
