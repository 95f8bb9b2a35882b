"""Runs in a forked process with a group of its own: signalled, killed, and gone on with."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from zoo.errors import InterruptedRunError, ZooError


class Pausing(Sequence[Any]):
    """Inputs that leave a mark when an item is looked at for the n-th time, and then take their time."""

    def __init__(self, inputs: Any, reads: int, mark: Path, seconds: float = 0.3) -> None:
        self.inputs, self.reads, self.mark, self.seconds = inputs, reads, mark, seconds

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: Any) -> Any:
        self.reads -= 1
        if self.reads == 0:
            pause(self.mark, self.seconds)
        return self.inputs[index]


def pause(mark: Path, seconds: float = 0.3) -> None:
    """Leave a mark and wait; a signal does not shorten it."""
    mark.touch()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def fork(function: Callable[[], Any], log: Path) -> int:
    """Run a function in a forked process of its own group, which exits with the code of its error; return the process."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        warnings.simplefilter("ignore")
        function()
        code = 0
    except (ZooError, InterruptedRunError) as error:
        os.write(2, f"error: {error}".encode())
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)  # never back into pytest


def await_mark(mark: Path, child: int, seconds: float = 60.0) -> None:
    """Wait until a mark is there."""
    end = time.monotonic() + seconds
    while not mark.exists():
        assert time.monotonic() < end, "the run never came to the point"
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the run ended before"
        time.sleep(0.002)


def ended(child: int) -> int:
    """Wait for a process and return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def await_no_group(group: int, seconds: float = 3.0) -> None:
    """Wait until no process of a group runs; one that is dead and waits to be collected does not."""
    end = time.monotonic() + seconds
    while _running(group):
        assert time.monotonic() < end, "a loader process lives on"
        time.sleep(0.01)


def _running(group: int) -> bool:
    for told in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, _, its = told.read_text().rpartition(")")[2].split()[:3]
            if int(its) == group and state != "Z":
                return True
    return False
