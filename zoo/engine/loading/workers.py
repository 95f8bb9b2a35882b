"""Signal handling in loader workers, which leave signals to the main process."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait

_LEFT = tuple(getattr(signal, name) for name in ("SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name))


def init_worker(_worker: int) -> None:
    """Prepare a worker whose main process handles signals; the ``worker_init_fn`` of a ``DataLoader``.

    A signal to the process group (Ctrl-C, a scheduler's SIGTERM) must not kill workers, or the current step could not be
    finished and saved. Yet they cannot ignore SIGTERM: at exit, multiprocessing sends it from the main process and waits,
    for ever if it is ignored. So a worker exits on a SIGTERM from its main process only, and when its main process has
    died.
    """
    for number in _LEFT:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    # Without sigwaitinfo the sender of a signal is unknown (macOS, Windows); SIGTERM then ends the worker as usual.
    if parent is not None and parent.pid is not None and hasattr(signal, "sigwaitinfo"):
        # Blocked here and in later threads, so that it stays pending for the thread that checks the sender.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_sigterm, args=(parent.pid, os.getppid()), daemon=True).start()
    if parent is not None:
        threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), daemon=True).start()


@contextmanager
def starting_workers(method: str) -> Iterator[None]:
    """Block signals while workers start: a new worker has no handlers yet.

    Args:
        method: Start method of multiprocessing. Forked workers install their handlers at once, others after seconds of imports. Until
            then a SIGTERM to the process group ends a worker of a fork server.
    """
    if not hasattr(signal, "sigwaitinfo"):
        yield
        return
    # Started before the signals are blocked: these helpers, and later processes that they start, would inherit the mask.
    if method == "forkserver":
        _start_fork_server()
    elif method == "spawn":
        resource_tracker.ensure_running()
    held = {signal.SIGTERM, *(_LEFT if method == "spawn" else ())}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def inherited_garbage_kept(method: str) -> Iterator[None]:
    """Keep workers that are forked meanwhile from finalising the main process's unreachable objects.

    A forked worker has a copy of the main process's reference cycles. Freed by its garbage collector, a tensor on a GPU would end the
    worker, which must not use CUDA. So all objects are frozen in the workers, as the documentation of ``gc.freeze`` advises, and
    unfrozen again in the main process, with those that the program had frozen.

    Args:
        method: Start method of multiprocessing; others than fork copy nothing.
    """
    if method != "fork":
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _start_fork_server() -> None:
    """Start the fork server, unless it runs, with signals blocked: a signal that ends it would end all its workers."""
    preloaded = forkserver._forkserver._preload_modules  # type: ignore[attr-defined]  # there is no public way to add one
    multiprocessing.set_forkserver_preload(["zoo.engine.loading.fork_server", *preloaded])
    try:
        forkserver.ensure_running()
    finally:
        multiprocessing.set_forkserver_preload(preloaded)


def _exit_on_sigterm(main: int, above: int) -> None:
    while True:
        sender = signal.sigwaitinfo({signal.SIGTERM}).si_pid
        if sender == main or os.getppid() != above:
            os._exit(0)


def _exit_with_parent(sentinel: int) -> None:
    wait([sentinel])
    os._exit(0)
