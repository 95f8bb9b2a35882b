"""Rendezvous of the processes that a launcher started."""

from __future__ import annotations

import atexit
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from zoo.engine.distributed.gpu_of_rank import gpu_of_rank, refuse_shared_gpus
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.runtime.device import choose_device
from zoo.engine.runtime.launch_env import launched
from zoo.errors import OptionError

_JOINED = itertools.count()
_FOUND: dict[str, Any] = {}  # for all runs of this process, because rank 0 may host the store


def refuse_foreign_launchers() -> None:
    """Raise if a launcher started several processes without the environment variables of torch's rendezvous.

    Raises:
        OptionError: Naming the launchers that are supported.
    """
    if os.environ.get("WORLD_SIZE"):
        return
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        if os.environ.get(name, "").strip() not in ("", "0", "1", "-1"):
            raise OptionError(
                f"several processes were started by a launcher that is not supported ({name}={os.environ[name]}); "
                "start them with torchrun, accelerate launch, or zoo train --num-processes"
            )


@contextmanager
def joined(wanted: str, timeout: float) -> Iterator[Ranks]:
    """Join the processes of this run; an error inside is reported to the other ranks.

    Args:
        wanted: Device, as for ``choose_device``.
        timeout: Seconds that a rank waits for the others.

    Raises:
        OptionError: If they cannot find each other.
    """
    ranks = join_processes(wanted, timeout)
    try:
        yield ranks
    except BaseException as error:
        ranks.leave(error)
        raise


def join_processes(wanted: str, timeout: float) -> Ranks:
    """Join the processes of this run through the environment variables of the launcher (torchrun, Accelerate).

    Args:
        wanted: Device, as for ``choose_device``.
        timeout: Seconds that a rank waits for the others.

    Raises:
        OptionError: If they cannot find each other, or are more than their GPUs.
    """
    refuse_foreign_launchers()
    count = launched()
    if count == 1:
        return Ranks(timeout=timeout)
    cuda = choose_device(wanted).type == "cuda"
    gpu = gpu_of_rank() if cuda else 0
    try:
        if not dist.is_initialized():
            if cuda:
                torch.cuda.set_device(gpu)  # NCCL, FSDP and Accelerate's "cuda" take the current device
            found = _rendezvous(timeout)
            # Decisions time out first, over gloo and with a named cause; NCCL would end the process.
            patience = timedelta(seconds=timeout + 120 if cuda else timeout)
            dist.init_process_group("nccl" if cuda else "gloo", timeout=patience, **found)
            atexit.register(_leave)
        ranks = Ranks(dist.get_rank(), count, timeout)
    except (ValueError, RuntimeError) as error:
        raise OptionError(f"the {count} processes cannot find each other: {error}; see docs/several-devices.md") from error
    if cuda and dist.get_backend() == "nccl":
        try:
            refuse_shared_gpus(ranks)
        except OptionError:
            _leave()  # a later run in these processes may be on the CPU
            raise
    return ranks


def _rendezvous(timeout: float) -> dict[str, Any]:
    """Return the launcher's store, the rank and the world size; each run has its own prefix, so that it starts empty."""
    if not _FOUND:
        store, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
        _FOUND.update(store=store, rank=rank, world_size=count)
    return _FOUND | {"store": PrefixStore(f"zoo/{next(_JOINED)}", _FOUND["store"])}


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
