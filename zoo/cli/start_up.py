"""Start-up of a process: imports of large libraries, and the first model."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from what is made while modules are imported and a model is built, then and later.

    It stays until the process ends. Looking through it again and again takes a quarter of the time of importing timm. The exit
    collects it after all: compiled extensions report objects that outlive them as leaks, line by line.
    """
    enabled = gc.isenabled()
    gc.disable()
    atexit.register(gc.unfreeze)
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
