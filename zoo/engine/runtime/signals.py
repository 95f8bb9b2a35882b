"""Graceful stop at a step boundary after a signal."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from zoo.engine.runtime.scratch import KEEP_NOTHING, is_scratch
from zoo.errors import InterruptedRunError

# Schedulers send SIGUSR1 some minutes before they end a job, a closed terminal sends SIGHUP.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name))


class Stopped(Exception):  # noqa: N818  # control flow inside the engine, never shown
    """Raised at a step boundary after a signal."""


OUT_OF_TIME = 1000  # in place of the number of a signal, above all of them


class StopFlag:
    """Set by the first signal or the end of the time, polled by every loop.

    Attributes:
        sent: The signal that came, or 0.
        deadline: When the time is over, by ``time.monotonic``.
    """

    def __init__(self) -> None:
        self.sent, self.deadline = 0, math.inf

    @property
    def signum(self) -> int:
        """The signal that came, ``OUT_OF_TIME`` after the deadline, or 0."""
        return self.sent or (OUT_OF_TIME if time.monotonic() >= self.deadline else 0)

    @signum.setter
    def signum(self, number: int) -> None:
        self.sent = number

    def poll(self) -> None:
        """Raise ``Stopped`` if a signal came, or the time is over."""
        if self.signum:
            raise Stopped

    @property
    def name(self) -> str:
        """Name of the signal that came."""
        return "the end of its time" if self.signum == OUT_OF_TIME else signal.Signals(self.signum).name

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, as in shells, else 143, as after SIGTERM."""
        return exit_code(self.signum)


def exit_code(signum: int) -> int:
    """Return the exit code of a run that a signal ended."""
    return 128 + (signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)


def stop_signal_numbers() -> list[signal.Signals]:
    """Return the signals that stop a run: all of ``SIGNALS``, without SIGHUP under ``nohup``, which ignores it."""
    return [number for number in SIGNALS if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def ending_early() -> Iterator[None]:
    """Exit with 143 on SIGUSR1 before training begins; unhandled, the signal would look like a crash."""

    def end(_signum: int, _frame: FrameType | None) -> None:
        error = InterruptedRunError("stopped by SIGUSR1 before the training began; nothing was changed")
        error.exit_code = exit_code(signal.SIGTERM)
        raise error

    if not hasattr(signal, "SIGUSR1") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR1, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def stop_signals() -> Iterator[StopFlag]:
    """Turn the first SIGINT, SIGTERM, SIGUSR1 or SIGHUP into a flag; the second one ends the process at once.

    Handlers are installed in the main thread only, as Python demands, and restored at the end.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    previous = {number: signal.getsignal(number) for number in stop_signal_numbers()}
    process = os.getpid()

    def handle(signum: int, _frame: FrameType | None) -> None:
        if os.getpid() != process:  # in a loader worker that was just forked; the parent handles it
            return
        if flag.sent:
            os._exit(exit_code(signum))
        flag.signum = signum
        if signum == signal.SIGINT and sys.stderr.isatty():
            os.write(2, b"\nstopping after this step, with a checkpoint; Ctrl-C again ends at once\n")

    for number in previous:
        signal.signal(number, handle)
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def interrupted(stop: StopFlag, folder: Path, where: str) -> InterruptedRunError:
    """Return the error that ends a run after a signal, with the exit code that shells expect."""
    place, remedy = f"stopped by {stop.name} in {where}", KEEP_NOTHING
    if not is_scratch(folder):
        place, remedy = f"{place}; a checkpoint is in {str(folder / 'checkpoint')!r}", how_to_go_on(folder)
    error = InterruptedRunError(f"{place}. {remedy}")
    error.exit_code, error.place, error.out_of_time = stop.exit_code, place, stop.signum == OUT_OF_TIME
    return error


def how_to_go_on(folder: Path, also: str = "") -> str:
    """Return the sentence that says how an interrupted run, search or cross-validation in a folder goes on.

    Args:
        folder: The folder.
        also: A further option that must be given again, such as ``recipe='auto'``.
    """
    return f"Go on with {f'{also}, ' if also else ''}resume=True (--resume) and out={str(folder)!r}"


def going_on(error: InterruptedRunError, folder: Path, also: str = "") -> InterruptedRunError:
    """Return the error of a run inside a larger work, saying how that work goes on, with the same exit code."""
    place = error.place or str(error)
    again = InterruptedRunError(f"{place}. {how_to_go_on(folder, also)}")
    again.exit_code, again.place = error.exit_code, place
    return again


def too_late(stop: StopFlag, folder: Path) -> InterruptedRunError:
    """Return the error for a signal that came after the last step."""
    error = InterruptedRunError(f"{stop.name} came after the last step: the run is complete, its model is saved in {str(folder)!r}")
    error.exit_code = stop.exit_code
    return error
