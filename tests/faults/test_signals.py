"""T5: a signal to a process or to its whole group ends a run at a step, with a checkpoint from which it goes on bit for bit."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.tiny import difference, images, model, values
from tests.faults.fork_run import Pausing, await_mark, await_no_group, ended, fork, pause
from zoo.data.open import open_data
from zoo.data.table import Table
from zoo.engine.rundir import checkpoint, checkpoint_writer
from zoo.engine.runtime.signals import stop_signal_numbers, stop_signals

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 143, signal.SIGHUP: 143}
OPTIONS: dict[str, Any] = {"recipe": "full", "epochs": 3, "batch_size": 8, "lr": 1e-2, "quiet": True}
# Which read of which data it is where a run pauses; 24 reads of the training data and 12 of the validation data are an epoch.
READS = {"first batch": ("train", 1), "training": ("train", 35), "evaluation": ("valid", 15)}

pytestmark = pytest.mark.usefixtures("only_reads_of_the_run")


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_writer, "INTERVAL", 0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    net = model()
    net.fit(*tables(), out=tmp_path_factory.mktemp("whole") / "run", **OPTIONS)
    return values(net)


def tables(where: str = "", reads: int = 0, mark: Path = Path()) -> tuple[Table, Table]:
    train, valid = open_data(images(24)), open_data(images(12, seed=1))
    if where == "train":
        train = Table(Pausing(train.inputs, reads, mark), train.targets, train.classes)
    if where == "valid":
        valid = Table(Pausing(valid.inputs, reads, mark), valid.targets, valid.classes)
    return train, valid


def fit(out: Path, data: tuple[Table, Table], **options: Any) -> Any:
    net = model()
    net.fit(*data, out=out, **(OPTIONS | options))
    return net


def slow_save(mark: Path) -> None:
    """Pause within the second checkpoint, after some of its files."""
    real, calls = checkpoint.file_digest, iter(range(100))

    def slow(path: Path) -> str:
        if next(calls) == 7:
            pause(mark)
        return real(path)

    checkpoint.file_digest = slow


def start(point: str, out: Path, workers: int) -> tuple[int, Path]:
    """Fork a run that pauses at a point; return its process and the mark it leaves there."""
    mark = out.with_name("mark")
    # Workers count for themselves, each the reads of its own batches.
    where, reads = READS.get(point, ("", 0))
    data = tables(where, reads if not workers else max(1, reads // workers), mark)

    def run() -> None:
        if point == "saving":
            slow_save(mark)
        fit(out, data, workers=workers)

    return fork(run, out.with_name("log")), mark


def goes_on(out: Path, whole: dict[str, torch.Tensor]) -> None:
    assert difference(values(fit(out, tables(), resume=True)), whole) == 0.0
    assert not list((out / "checkpoint").glob(".stage-*"))


POINTS = [*READS, "saving"]
# Each point with and without workers, and each signal at several points, always; all combinations in the sweep.
ALWAYS = {(point, list(CODES)[(place + workers // 2) % 3], workers) for place, point in enumerate(POINTS) for workers in (0, 2)}
ALWAYS |= {("training", signum, -1) for signum in CODES}


def cases(*workers: int) -> list[Any]:
    every = itertools.product(POINTS, CODES, workers)
    return [case if case in ALWAYS else pytest.param(*case, marks=pytest.mark.sweep) for case in every]


@pytest.mark.parametrize(("point", "signum", "workers"), cases(0, 2))
def test_t5_a_signal_to_the_group_ends_with_a_checkpoint(
    point: str, signum: signal.Signals, workers: int, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    child, mark = start(point, tmp_path / "run", workers)
    await_mark(mark, child)
    before = time.monotonic()
    os.killpg(child, signum)
    assert ended(child) == CODES[signum], (tmp_path / "log").read_text()
    assert time.monotonic() - before <= 5
    assert f"stopped by {signum.name}" in (tmp_path / "log").read_text()
    await_no_group(child)
    assert list((tmp_path / "run/checkpoint").iterdir())
    goes_on(tmp_path / "run", whole)


@pytest.mark.parametrize(("point", "signum", "_alone"), cases(-1))
def test_t5_a_signal_to_the_process_alone_does_the_same(
    point: str, signum: signal.Signals, _alone: int, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    child, mark = start(point, tmp_path / "run", 0)
    await_mark(mark, child)
    os.kill(child, signum)
    assert ended(child) == CODES[signum], (tmp_path / "log").read_text()
    goes_on(tmp_path / "run", whole)


@pytest.mark.parametrize(("point", "workers"), [("training", 2), ("evaluation", 0), ("saving", 2), ("saving", 0)])
def test_t5_a_second_signal_ends_at_once_and_harms_nothing(
    point: str, workers: int, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    child, mark = start(point, tmp_path / "run", workers)
    await_mark(mark, child)
    before = time.monotonic()
    os.killpg(child, signal.SIGTERM)
    time.sleep(0.05)
    os.killpg(child, signal.SIGTERM)
    assert ended(child) == 143
    assert time.monotonic() - before < 1
    await_no_group(child)
    goes_on(tmp_path / "run", whole)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_t5_a_signal_while_the_data_are_looked_through_ends_at_once(
    signum: signal.Signals, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    train, valid = tables()
    slow = Table([Slow(item, mark) for item in train.inputs], train.targets, train.classes)
    child = fork(lambda: fit(tmp_path / "run", (slow, valid), on_corrupt="skip"), tmp_path / "log")
    await_mark(mark, child)
    unheard = () if signum == signal.SIGUSR1 else (-signum,)  # which is the same to a shell
    assert stubborn(child, signum) in (CODES[signum], *unheard)
    assert difference(values(fit(tmp_path / "run", tables())), whole) == 0.0


def stubborn(child: int, signum: int) -> int:
    """Send a signal until the process ends, for at most two seconds: Python loses a Ctrl-C that meets it in a destructor."""
    before = time.monotonic()
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
        os.killpg(child, signum)
        time.sleep(0.2)
        assert time.monotonic() - before <= 2
    return os.waitstatus_to_exitcode(found[1])


class Slow:
    """An image that takes half a second to become an array."""

    def __init__(self, pixels: Any, mark: Path) -> None:
        self.pixels, self.mark = pixels, mark
        self.shape, self.dtype, self.ndim = pixels.shape, pixels.dtype, pixels.ndim

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        pause(self.mark, 0.5)
        return self.pixels


def test_t5_workers_end_when_their_main_process_is_killed(tmp_path: Path) -> None:
    child, mark = start("training", tmp_path / "run", 2)
    await_mark(mark, child)
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    await_no_group(child, 1.0)


def test_t5_handlers_come_back_after_a_run(tmp_path: Path) -> None:
    before: list[Callable[..., Any] | int | None] = [signal.getsignal(number) for number in CODES]
    fit(tmp_path / "run", tables())
    assert [signal.getsignal(number) for number in CODES] == before


def test_under_nohup_a_terminal_that_is_closed_stops_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in stop_signal_numbers()
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.signum
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert signal.SIGHUP in stop_signal_numbers()
    finally:
        signal.signal(signal.SIGHUP, before)
