"""Peak memory of a piece of work on a device, and the memory that it leaves allocated."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import profile

_LOGGING = "KINETO_LOG_LEVEL"


@dataclass
class Footprint:
    """Memory of a device, in bytes above what it held before.

    Attributes:
        peak: The most that was allocated at any time.
        held: What is still allocated at the end; negative where more was freed.
    """

    peak: int = 0
    held: int = 0


@contextmanager
def footprint(device: torch.device) -> Iterator[Footprint]:
    """Measure what torch allocates on ``device`` inside; filled in at the end.

    On a GPU the allocator keeps count. On the CPU torch's profiler records every allocation, temporaries and oneDNN's
    scratch memory included. Resident memory would not do: what was freed before is used again, and does not show. The
    profiler does not see that something is freed which was there before, so nothing of that kind should happen inside.
    """
    told = Footprint()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield told
        torch.cuda.synchronize(device)
        told.peak = torch.cuda.max_memory_allocated(device) - before
        told.held = torch.cuda.memory_allocated(device) - before
    elif device.type == "mps":  # keeps no peak: what it took from the system is the nearest
        torch.mps.empty_cache()
        before, taken = torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
        yield told
        told.held = torch.mps.current_allocated_memory() - before
        told.peak = max(told.held, torch.mps.driver_allocated_memory() - taken)
    else:
        with _without_a_word(), profile(profile_memory=True, use_device=None) as recorded:
            yield told
        _add_up(told, recorded)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, memory that several share counted once."""
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def _add_up(told: Footprint, recorded: profile) -> None:
    assert recorded.kineto_results is not None, "the profiler has ended"
    found: list[Any] = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(found, key=lambda event: event.start_ns()):
        if event.device_type().name == "CPU":
            told.held += event.nbytes()
            told.peak = max(told.peak, told.held)


@contextmanager
def _without_a_word() -> Iterator[None]:
    """Keep the profiler's library from telling on standard error that it starts, stops, and finds no GPU."""
    before = os.environ.get(_LOGGING)
    os.environ.setdefault(_LOGGING, "99")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_LOGGING]
