"""Further processes, on this machine or as jobs of Slurm, that run trials of a search."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.cli.commands.selecting.slurm import slurm_workers
from zoo.cli.launch import PARENT, POLL_SECONDS, STOPPED, signal_name
from zoo.engine.runtime.cores import usable_cores
from zoo.engine.runtime.signals import StopFlag

GRACE_SECONDS = 60.0  # seconds that a worker has to end its step after a signal


@contextlib.contextmanager
def workers(words: Sequence[str], count: int, folder: Path, stop: StopFlag, *, slurm: dict[str, Any] | None = None) -> Iterator[None]:
    """Run the same command in further processes that join the search, until they have ended; the context waits for them.

    After an error or a signal here they are stopped, with a checkpoint. One that dies is told of, and its trial is marked as failed.

    Args:
        words: Arguments of the command line.
        count: Number of processes.
        folder: The folder of the search.
        stop: Set by a signal.
        slurm: Parameters of jobs of Slurm, which take the place of processes on this machine; None for these.
    """
    rest = _without(words, ("--resume", "--json"), ("--out", "--workers", "--slurm"))
    command = [sys.executable, "-m", "zoo.cli", *rest, "--join", "--quiet"]
    if slurm is not None:
        with slurm_workers([*command, "--out", str(folder.resolve())], count, slurm, folder, stop):
            yield
        return
    environment = {"OMP_NUM_THREADS": str(max(1, usable_cores() // (count + 1))), **os.environ, PARENT: str(os.getpid())}
    where: dict[str, Any] = {"env": environment, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    # In a session of their own, or Ctrl-C would reach them twice, from the terminal and from here.
    where["start_new_session"] = os.name == "posix"
    children = [subprocess.Popen([*command, "--out", str(folder)], **where) for _ in range(count)]
    ending = threading.Event()
    watches = [threading.Thread(target=_watch, args=(number, child, ending)) for number, child in enumerate(children, 2)]
    for watch in watches:
        watch.start()
    try:
        yield
        while not stop.signum and any(watch.is_alive() for watch in watches):
            time.sleep(POLL_SECONDS)
    finally:
        ending.set()
        for child in children:
            child.terminate()  # nothing happens to one that has ended
        for watch, child in zip(watches, children, strict=True):
            watch.join(GRACE_SECONDS)
            if watch.is_alive():
                child.kill()
                watch.join()


def _watch(number: int, worker: subprocess.Popen[bytes], ending: threading.Event) -> None:
    """Wait for a worker, and tell at once that it failed; as long as nobody waits, other workers take its process as alive.

    Nothing is told of one that is stopped with the search, which a signal ends before it has handlers.
    """
    code = worker.wait()
    if code not in (0, *STOPPED) and not ending.is_set():
        print(f"worker {number} ended with {_ending(code)}; its trial counts as failed, and the search goes on", file=sys.stderr)


def _ending(code: int) -> str:
    return signal_name(-code) if code < 0 else f"code {code}"


def _without(words: Sequence[str], switches: Sequence[str], valued: Sequence[str]) -> list[str]:
    """Return a command line without some options."""
    found, skip = list[str](), False
    for word in words:
        name = word.partition("=")[0]
        if skip:
            skip = False
        elif name in valued:
            skip = "=" not in word
        elif name not in switches:
            found.append(word)
    return found
