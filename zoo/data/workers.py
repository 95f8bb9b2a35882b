"""What a loader worker does about signals: leave them to the main process, and end with it."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

_ENDING: list[torch.Tensor] = []


def worker_init() -> Callable[[int], None]:
    """Return the ``worker_init_fn`` of a ``DataLoader`` whose main process handles signals itself.

    A signal to the process group (Ctrl-C, a scheduler's SIGTERM) must not kill workers, or the step that is under way
    could not be finished and saved. Yet they cannot ignore SIGTERM for good: at the end of the main process,
    multiprocessing sends it to them and then waits, for ever if they are deaf to it. So they obey it once the main
    process has begun to end, which a flag in shared memory tells.
    """
    if not _ENDING:
        _ENDING.append(torch.zeros(1, dtype=torch.uint8).share_memory_())  # type: ignore[no-untyped-call]  # torch has no types here
        # Handlers run last in, first out: this one before multiprocessing's.
        atexit.register(_ENDING[0].fill_, 1)
    return partial(_start_worker, _ENDING[0], os.getpid())


def _start_worker(ending: torch.Tensor, parent: int, _worker: int) -> None:
    def on_terminate(_number: int, _frame: Any) -> None:
        if ending[0] or os.getppid() != parent:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_terminate)
