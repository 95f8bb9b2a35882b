"""The GPU of each rank: its index in this process, and a check that no two ranks have the same one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from zoo.errors import OptionError, fault_list

if TYPE_CHECKING:
    from zoo.engine.distributed.ranks import Ranks

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
        raise OptionError(f"the process with local rank {local} has no GPU, as it sees {visible} of them{within}. {_REMEDY}")
    return local


def refuse_shared_gpus(ranks: Ranks) -> None:
    """Check that no two ranks use the same GPU, with which NCCL would fail in its first collective.

    All ranks must call it, before any other collective.

    Raises:
        OptionError: On every rank, naming the GPUs and their ranks.
    """
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    faults = shared_gpus(ranks.gather(str(getattr(properties, "uuid", ""))))  # not every build of torch knows it
    if faults:
        raise ranks.known(OptionError(fault_list(f"{ranks.count} processes have fewer GPUs:", faults, _REMEDY)))


def shared_gpus(names: Sequence[str]) -> list[str]:
    """Return one fault for each GPU that several ranks use.

    Args:
        names: An identifier of each rank's GPU; empty if unknown.
    """
    ranks_of: dict[str, list[str]] = {}
    for rank, name in enumerate(names):
        ranks_of.setdefault(name, []).append(str(rank))
    return [f"ranks {', '.join(ranks)} share GPU {name}" for name, ranks in ranks_of.items() if name and len(ranks) > 1]
