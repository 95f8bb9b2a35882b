"""Start method of loader processes, and a check that their datasets can be pickled."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Mapping
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from torch import Tensor

from zoo.errors import OptionError

log = logging.getLogger("zoo")
FORK = "fork"
MAIN_GUARD = "put what starts a run below if __name__ == '__main__':"
_REMEDY = "Define it at the top level of a module, or load in the main process (workers=0), or set the start method 'fork' first"


def start_method() -> str:
    """Return the start method of loader processes: the one that the program has set, else fork on Linux.

    A forked process needs no pickled dataset and does not import the main script again; it must not use CUDA.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    if chosen is not None:
        return chosen
    # Not get_start_method(), which would fix the default and make a later set_start_method() of the program an error.
    return FORK if sys.platform == "linux" else multiprocessing.get_all_start_methods()[0]


def usable_workers(wanted: int | None, default: int, parts: Mapping[str, Any]) -> int:
    """Return how many loader processes to start, after a check that they can be.

    Args:
        wanted: The number that the user set, or None.
        default: The number if the user set none.
        parts: Objects that are pickled for processes that are not forked, by their names for messages.

    Raises:
        OptionError: If a part cannot be pickled for ``wanted`` processes; with None, the main process loads, with a log line.
    """
    number, method = default if wanted is None else wanted, start_method()
    if not number or method == FORK:
        return number
    faults = [fault for name, part in parts.items() if (fault := _unsendable(name, part))]
    if faults and wanted is not None:
        raise OptionError(f"workers={wanted}, which start by {method!r}: {'; '.join(faults)}. {_REMEDY}")
    if wanted is None and not faults and _unguarded():
        faults = [f"the main script, which they import, would start the run anew; {MAIN_GUARD}"]
    if faults:
        log.warning("samples are loaded in the main process, as loader processes start by %r: %s", method, "; ".join(faults))
        return 0
    return number


def refuse_second_run() -> None:
    """Raise if this process is a loader process of another run that is still importing the main script.

    Raises:
        OptionError: Naming the ``if __name__ == "__main__"`` guard.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise OptionError(f"a loader process imports the main script, which starts another run; {MAIN_GUARD}, or set workers=0")


class _Probe(ForkingPickler):
    """A pickler like multiprocessing's that skips the values of arrays and tensors; its output cannot be loaded."""

    def reducer_override(self, item: Any) -> Any:
        if isinstance(item, Tensor) or (isinstance(item, np.ndarray) and not item.dtype.hasobject):
            return int, ()
        if type(item).__module__.startswith("multiprocessing."):  # locks and queues can be pickled only while a process starts
            return int, ()
        if isinstance(item, type | FunctionType) and item.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
            raise TypeError(f"{item.__qualname__} was defined in a session that other processes cannot import")
        return NotImplemented


class _Sink:
    """A file that discards what is written."""

    def write(self, content: Any) -> int:
        return len(content)


def _unsendable(name: str, part: Any) -> str:
    """Return why a part cannot be pickled; empty if it can."""
    try:
        _Probe(_Sink()).dump(part)
    except Exception as error:  # parts of the user's own may raise anything
        return f"{name} cannot be sent to them ({type(error).__name__}: {error})"
    return ""


def _unguarded() -> bool:
    """Return whether the main script lacks an ``if __name__ == "__main__"`` guard."""
    main = sys.modules["__main__"]
    path, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if not path or (spec is not None and spec.name.endswith("__main__")):  # such a main module is not imported again
        return False
    try:
        return "__name__" not in Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
