"""Launcher of several ranks on this machine: starts them, forwards signals, and ends all if one fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from zoo.engine.runtime.cores import usable_cores
from zoo.engine.runtime.launch_env import launched
from zoo.engine.runtime.signals import exit_code, stop_signal_numbers
from zoo.errors import OptionError

POLL_SECONDS = 0.1  # seconds between polls of the processes
GRACE_SECONDS = 15.0  # seconds that the other ranks have to end by themselves after one has failed
PARENT = "ZOO_LAUNCHER"  # environment variable: process id of the launcher
STOPPED = (130, 143)  # exit codes after a signal and a checkpoint


def launch_ranks(words: Sequence[str], wanted: int | None, *, check: Callable[[], object] = lambda: None) -> None:
    """Run this command in as many processes as are wanted, and exit with their code; return in each of them.

    Args:
        words: Arguments of the command line.
        wanted: Number of processes; None for those that a launcher has started, or one.
        check: Called before processes are started.

    Raises:
        OptionError: If the number is below 1, or is not that of the launcher.
    """
    started, wanted = launched(), 1 if wanted is None else wanted
    if wanted < 1:
        raise OptionError(f"--num-processes is {wanted}; it must be 1 or more")
    if wanted > 1 and started == 1:
        check()
        sys.exit(launch(words, wanted))
    if wanted > 1 and wanted != started:
        raise OptionError(f"--num-processes is {wanted}, and a launcher started {started} processes; leave one of them out")
    follow_launcher()


def launch(words: Sequence[str], count: int) -> int:
    """Run ``zoo`` with the same arguments in ``count`` processes on this machine, until all have ended.

    The processes get torchrun's environment variables. Signals are forwarded to each process. When one has failed, the
    others have ``GRACE_SECONDS`` seconds to end by themselves.

    Args:
        words: Arguments of the command line.
        count: Number of processes, at least 2.

    Returns:
        The exit code: 0 if all succeed, 130 or 143 after a stop with a checkpoint, else that of the first failure.
    """
    with _forwarding() as (children, forwarded):
        port = _free_port()
        for number in range(count):  # added one by one, so that a signal in between reaches the running ones
            children.append(_start(words, number, count, port))
        codes = _watch(children)
    # A process without signal handlers yet is ended by a forwarded signal.
    failed = [exit_code(-code) if -code in forwarded else code for code in codes if code]
    stops = [code for code in failed if code in STOPPED]
    if stops and all(code in STOPPED or code < 0 for code in failed):
        return stops[0]
    return next((code for code in failed if code > 0), 1 if failed else 0)


def _start(words: Sequence[str], number: int, count: int, port: int) -> subprocess.Popen[bytes]:
    threads = max(1, usable_cores() // count)
    extra = {PARENT: os.getpid(), "RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "MASTER_ADDR": "127.0.0.1"}
    environment |= {name: str(value) for name, value in extra.items()}
    # In a session of its own, or Ctrl-C would reach it twice, from the terminal and from here.
    return subprocess.Popen(
        [sys.executable, "-m", "zoo.cli", *words], env=environment, stdin=subprocess.DEVNULL, start_new_session=os.name == "posix"
    )


def follow_launcher() -> None:
    """Stop this process with a checkpoint if its launcher has died; a killed launcher cannot forward signals."""
    parent = int(os.environ.get(PARENT) or 0)
    if not parent:
        return

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _forwarding() -> Iterator[tuple[list[subprocess.Popen[bytes]], set[int]]]:
    """Forward signals to the processes in the list while the context is open, and kill what still runs at its end."""
    children: list[subprocess.Popen[bytes]] = []
    forwarded: set[int] = set()

    def forward(signum: int, _frame: FrameType | None) -> None:
        forwarded.add(signum)
        for child in children:
            if child.poll() is None:
                child.send_signal(signum)

    before = {number: signal.signal(number, forward) for number in stop_signal_numbers()}
    try:
        yield children, forwarded
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()


def _watch(children: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Wait for all processes; return their exit codes in the order in which they end, negative for signals."""
    codes: dict[int, int] = {}
    deadline = float("inf")
    while len(codes) < len(children):
        for number, child in enumerate(children):
            code = child.poll()
            if code is None or number in codes:
                continue
            codes[number] = code
            if code < 0 and deadline == float("inf"):
                print(f"rank {number} was ended by {signal_name(-code)}", file=sys.stderr)
            if code:
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > deadline:
            for child in children:
                child.kill()
        time.sleep(POLL_SECONDS)
    return list(codes.values())


def signal_name(number: int) -> str:
    """Return the name of a signal, and for SIGKILL where it often comes from."""
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"{name} (which the system sends when memory runs out)" if name == "SIGKILL" else name
