"""M8: a second run on one folder is refused at once; a lock that nobody holds any more is none."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import images, model
from tests.faults.fake_dist import ROOT
from zoo.engine.rundir.lock import NAME, lock_folder, unlock_folder
from zoo.engine.rundir.run_folder import claim_folder, release_folder
from zoo.errors import DiskFullError, OutputExistsError, RunLockedError

# A process that claims a folder, forks a child that lives on as a loader worker would, and waits.
HOLDER = """
    import os, sys, time
    from pathlib import Path
    from zoo.engine.rundir.run_folder import claim_folder
    claim_folder(sys.argv[1], "toy/net", "full", resume=True)
    if os.fork() == 0:
        os.close(1)
        time.sleep(5)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    around = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=around) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def claim(folder: Path, *, resume: bool = True) -> Path:
    return claim_folder(folder, "toy/net", "full", resume=resume)


def fit(out: Path, **options: Any) -> Any:
    return model().fit(images(24), images(12), recipe="full", epochs=1, batch_size=8, out=out, quiet=True, **options)


@pytest.mark.parametrize("resume", [False, True])
def test_m8_a_second_run_is_refused_with_the_first_ones_process(holder: subprocess.Popen[str], resume: bool, tmp_path: Path) -> None:
    fit(tmp_path / "other")  # imports what a run needs
    before = time.monotonic()
    with pytest.raises(RunLockedError, match=rf"process {holder.pid} on {socket.gethostname()}, since \d+-.*choose another"):
        fit(tmp_path / "run", resume=resume)
    assert time.monotonic() - before <= 2
    assert [path.name for path in (tmp_path / "run").iterdir()] == [NAME]


def test_m8_the_lock_of_a_killed_run_is_free_at_once_although_its_workers_live_on(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / NAME).is_file()
    assert fit(tmp_path / "run").kept == 1
    assert not (tmp_path / "run" / NAME).exists()


def test_m8_two_threads_of_one_process_are_two_runs(tmp_path: Path) -> None:
    refused: list[Exception] = []
    claim(tmp_path / "run")

    def second() -> None:
        try:
            claim(tmp_path / "run")
        except RunLockedError as error:
            refused.append(error)

    thread = threading.Thread(target=second)
    thread.start()
    thread.join()
    assert f"process {os.getpid()}" in str(refused[0])
    release_folder(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_m8_of_many_runs_that_start_together_each_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    taken: list[Path] = []
    threads = [threading.Thread(target=lambda: taken.append(claim_folder(None, "toy/net", "full", resume=False))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 20
    for folder in taken:
        release_folder(folder)


def test_m8_a_failed_run_gives_its_lock_back(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    for _ in range(2):
        with pytest.raises(OutputExistsError, match="no run to resume"):
            fit(tmp_path / "run", resume=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows none."""

    def refuses(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)


def dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize(
    ("told", "refused"),
    [
        ({"pid": os.getppid(), "host": socket.gethostname()}, True),
        ({"pid": 1, "host": socket.gethostname()}, True),
        ({"pid": dead(), "host": socket.gethostname()}, False),
        ({"pid": dead(), "host": "elsewhere"}, True),  # nobody here can know
        ({"host": socket.gethostname()}, False),
        ("half of {", False),
        ("", False),
        ([1], False),
    ],
)
def test_m8_without_locks_the_number_of_the_process_decides(told: Any, refused: bool, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(told if isinstance(told, str) else json.dumps(told))
    if refused:
        with pytest.raises(RunLockedError, match="in use by another run"):
            lock_folder(tmp_path)
    else:
        lock_folder(tmp_path)
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
        with pytest.raises(RunLockedError):
            lock_folder(tmp_path)
        unlock_folder(tmp_path)
        assert not (tmp_path / NAME).exists()


def test_m8_a_lock_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFullError, match=r"No space left on device\): it takes"):
        claim(tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run").exists()
    release_folder(claim(tmp_path / "run"))
