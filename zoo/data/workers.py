"""Signal handling in loader workers: signals are left to the main process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait

_LEFT = tuple(getattr(signal, name) for name in ("SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name))


def worker_init() -> Callable[[int], None]:
    """Return the ``worker_init_fn`` of a ``DataLoader`` whose main process handles signals itself.

    A signal to the process group (Ctrl-C, a scheduler's SIGTERM) must not kill workers, or the step that is under way
    could not be finished and saved. Yet they cannot simply ignore SIGTERM: at the end of the main process,
    multiprocessing sends it to them and then waits, for ever if they ignore it. So a worker ends when its main process
    sends SIGTERM, and not when anybody else does. It also ends as soon as its main process is no more, whatever it is
    busy with.
    """
    return _start


@contextmanager
def starting_workers(method: str) -> Iterator[None]:
    """Hold signals back while workers are started: one that began a moment ago does not yet know whom to obey.

    Args:
        method: Start method of multiprocessing. A forked worker is told at once; a spawned one first imports for seconds.
    """
    if not hasattr(signal, "sigwaitinfo"):
        yield
        return
    # Now, as what they would inherit from here is not theirs: all later processes of the program come from them.
    if method == "forkserver":
        forkserver.ensure_running()
    elif method == "spawn":
        resource_tracker.ensure_running()
    held = {signal.SIGTERM, *(_LEFT if method == "spawn" else ())}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(_worker: int) -> None:
    for number in _LEFT:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    # Where the sender of a signal cannot be known (macOS, Windows), SIGTERM keeps its usual meaning.
    if parent is not None and parent.pid is not None and hasattr(signal, "sigwaitinfo"):
        # Blocked here and in every later thread, so that it waits for the thread that looks at the sender.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(parent.pid, os.getppid()), daemon=True).start()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _obey(main: int, above: int) -> None:
    while True:
        sender = signal.sigwaitinfo({signal.SIGTERM}).si_pid
        if sender == main or os.getppid() != above:
            os._exit(0)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(0)
