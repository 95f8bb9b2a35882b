"""Snapshots of process-wide state that a plugin can change for all other code."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def snapshot() -> dict[str, Any]:
    """Return the state of this process, including torch's if torch is imported."""
    state = {name: read() for name, read in _STATE.items()}
    return state | ({name: read() for name, read in _TORCH.items()} if "torch" in sys.modules else {})


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the differences as text; entries of only one of the snapshots are not compared."""
    differences = []
    for name in before:
        if name in after and before[name] != after[name]:
            differences.append(name + _keys(before[name], after[name]))
    return differences


def _keys(before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(str(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        return f" ({', '.join(keys[:4])})"
    return ""


def _torch() -> Any:
    return sys.modules["torch"]


def _numpy_seed() -> Any:
    numpy = sys.modules.get("numpy")
    return numpy and [str(part) for part in numpy.random.get_state()]


_STATE: dict[str, Callable[[], Any]] = {
    "warnings filters": lambda: list(warnings.filters),
    "the seed of random": random.getstate,
    "the seed of numpy": _numpy_seed,
    "sys.path": lambda: list(sys.path),
    "sys.meta_path": lambda: [id(finder) for finder in sys.meta_path],
    "sys.excepthook": lambda: id(sys.excepthook),
    "the environment": lambda: dict(os.environ),
    "signal handlers": lambda: {str(number): repr(signal.getsignal(number)) for number in signal.valid_signals()},
    "the working directory": os.getcwd,
    "the default timeout of sockets": socket.getdefaulttimeout,
    "the root logger": lambda: (logging.root.level, len(logging.root.handlers), logging.root.manager.disable),
    "threads that run on": lambda: sorted(thread.name for thread in threading.enumerate()),
    "the recursion limit": sys.getrecursionlimit,
}
_TORCH: dict[str, Callable[[], Any]] = {
    "torch.load": lambda: id(_torch().load),
    "torch.save": lambda: id(_torch().save),
    "the default dtype of torch": lambda: str(_torch().get_default_dtype()),
    "the threads of torch": lambda: _torch().get_num_threads(),
    "the seed of torch": lambda: _torch().random.get_rng_state().tolist(),
    "whether gradients are on": lambda: _torch().is_grad_enabled(),
    "deterministic algorithms": lambda: _torch().are_deterministic_algorithms_enabled(),
    "the precision of float32 products": lambda: _torch().get_float32_matmul_precision(),
    "cudnn.benchmark": lambda: _torch().backends.cudnn.benchmark,
}
