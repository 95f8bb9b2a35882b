"""Batches from samples, in an order that the caller decides, by workers that leave signals to the main process."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from zoo.data.dataset import Samples
from zoo.errors import OptionError

Batch: TypeAlias = "tuple[torch.Tensor, torch.Tensor, torch.Tensor]"
_ENDING: list[torch.Tensor] = []


def collate(samples: Sequence[tuple[torch.Tensor, Any, int]]) -> Batch:
    """Stack samples to ``(batch, channels, height, width)``, targets (int64 or float32) and indices (int64)."""
    xs, targets, indices = zip(*samples, strict=True)
    whole = isinstance(targets[0], int)
    y = torch.tensor(targets, dtype=torch.int64) if whole else torch.from_numpy(np.stack(targets).astype(np.float32, copy=False))
    return torch.stack(xs), y, torch.tensor(indices, dtype=torch.int64)


def make_loader(
    samples: Samples,
    *,
    batch_size: int,
    order: Sampler[int] | Sequence[int] | None = None,
    batches: Sampler[list[int]] | Sequence[Sequence[int]] | None = None,
    workers: int = 0,
    pin_memory: bool = False,
    drop_last: bool = False,
) -> DataLoader[Any]:
    """Return a loader of ``(x, target, index)`` batches.

    Workers live on between epochs, ignore SIGINT and SIGTERM, so that the main process can finish its step and save, and
    end with it.

    Args:
        samples: What to load.
        batch_size: Samples per batch; unused with ``batches``.
        order: Indices in the order of one epoch, or a sampler; None is the order of the table.
        batches: Lists of indices, or a batch sampler, instead of ``order`` and ``batch_size``.
        workers: Number of processes; 0 loads in this one.
        pin_memory: Whether batches are copied to pinned memory, for transfers to a GPU that do not block.
        drop_last: Whether a last batch that is smaller is left out.
    """
    if order is not None and batches is not None:
        raise OptionError("give order= or batches=, not both")
    if batch_size < 1 or workers < 0:
        raise OptionError(f"batch_size is {batch_size}, at least 1; workers is {workers}, at least 0")
    options: dict[str, Any] = {"batch_sampler": batches}
    if batches is None:
        options = {"sampler": order, "batch_size": batch_size, "drop_last": drop_last}
    init = partial(start_worker, _ending(), os.getpid()) if workers else None
    return DataLoader(
        samples,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=collate,
        worker_init_fn=init,
        persistent_workers=workers > 0,
        **options,
    )


def start_worker(ending: torch.Tensor, parent: int, worker: int) -> None:
    """Make a worker leave Ctrl-C and SIGTERM to the main process, until that process itself comes to its end."""

    def on_terminate(number: int, frame: Any) -> None:
        if ending[0] or os.getppid() != parent:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_terminate)


def _ending() -> torch.Tensor:
    """Return the shared flag that is set when this process ends.

    At its end, multiprocessing terminates the children by SIGTERM and then waits for them, for ever if they ignore it.
    Its handler was registered before ours, so ours runs first.
    """
    if not _ENDING:
        _ENDING.append(torch.zeros(1, dtype=torch.uint8).share_memory_())  # type: ignore[no-untyped-call]  # torch has no types here
        atexit.register(_ENDING[0].fill_, 1)
    return _ENDING[0]
