"""Rendezvous of the processes that a launcher started."""

from __future__ import annotations

import atexit
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store
from torch.distributed.rendezvous import rendezvous

from zoo.engine.distributed.heartbeat import set_announcement_store
from zoo.engine.distributed.rank_devices import agree_on_devices
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.runtime.device import end_process_group
from zoo.engine.runtime.launch_env import launched
from zoo.errors import OptionError

_JOINED = itertools.count()
# Store, rank and world size for all runs of this process, because rank 0 may host the store; and whether zoo made the group.
_FOUND: dict[str, Any] = {}


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
        OptionError: If they cannot find each other, or their devices do not go together.
    """
    refuse_foreign_launchers()
    count = launched()
    if count == 1:
        return Ranks(timeout=timeout)
    try:
        found = _rendezvous(timeout)
        set_announcement_store(found["store"])
        cuda = agree_on_devices(found["store"], found["rank"], count, wanted)
        backend = "nccl" if cuda else "gloo"
        if _FOUND["ours"] and dist.is_initialized() and dist.get_backend() != backend:
            dist.destroy_process_group()  # of an earlier run on another device
        if not dist.is_initialized():
            # Decisions time out first, over gloo and with a named cause; NCCL would end the process.
            patience = timedelta(seconds=timeout + 120 if cuda else timeout)
            dist.init_process_group(backend, timeout=patience, **found)
            _FOUND["ours"] = True
            atexit.register(end_process_group)
        return Ranks(dist.get_rank(), count, timeout, found["store"])
    except OptionError:
        raise
    except (ValueError, RuntimeError) as error:
        raise OptionError(f"the {count} processes cannot find each other: {error}; see docs/several-devices.md") from error


def _rendezvous(timeout: float) -> dict[str, Any]:
    """Return the launcher's store, the rank and the world size; each run has its own prefix, so that it starts empty."""
    if not _FOUND and dist.is_initialized():  # by the program, which may host the launcher's store
        _FOUND.update(store=_get_default_store(), rank=dist.get_rank(), world_size=dist.get_world_size(), ours=False)
    elif not _FOUND:
        store, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
        _FOUND.update(store=store, rank=rank, world_size=count, ours=False)
    store = PrefixStore(f"zoo/{next(_JOINED)}", _FOUND["store"])
    return {"store": store, "rank": _FOUND["rank"], "world_size": _FOUND["world_size"]}
