"""Start-up of a process: imports of large libraries, and the first model."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from what is made while modules are imported and a model is built, then and later.

    It stays until the process ends. Looking through it again and again, the last time at the exit, takes a quarter of the time of
    importing timm.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
