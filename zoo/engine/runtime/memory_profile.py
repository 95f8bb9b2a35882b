"""Peak and remaining memory of a block of code."""

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
    """Measure what torch allocates on ``device`` inside the context; the result is filled in at its end.

    On a GPU the allocator keeps count. On the CPU torch's profiler records every allocation, temporaries and oneDNN's
    scratch memory included. Resident memory is not a measure, as memory freed before is used again. Memory that was
    allocated before must not be freed inside, as the profiler does not see it.
    """
    measured = Footprint()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield measured
        torch.cuda.synchronize(device)
        measured.peak = torch.cuda.max_memory_allocated(device) - before
        measured.held = torch.cuda.memory_allocated(device) - before
    elif device.type == "mps":  # records no peak; memory taken from the system is the nearest
        torch.mps.empty_cache()
        before, taken = torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
        yield measured
        measured.held = torch.mps.current_allocated_memory() - before
        measured.peak = max(measured.held, torch.mps.driver_allocated_memory() - taken)
    else:
        with _quiet_profiler(), profile(profile_memory=True, use_device=None) as recorded:
            yield measured
        _add_up(measured, recorded)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, memory that several share counted once."""
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def _add_up(measured: Footprint, recorded: profile) -> None:
    assert recorded.kineto_results is not None, "the profiler has ended"
    found: list[Any] = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(found, key=lambda event: event.start_ns()):
        if event.device_type().name == "CPU":
            measured.held += event.nbytes()
            measured.peak = max(measured.peak, measured.held)


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    """Silence the profiler's own messages on standard error."""
    before = os.environ.get(_LOGGING)
    os.environ.setdefault(_LOGGING, "99")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_LOGGING]
