"""Searches of several processes, some of which are killed in the middle of a trial."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import model
from tests.faults.fork_run import await_mark, ended, fork
from tests.select.tuning_search.test_tune import DATA, study_in
from zoo.cli.commands.selecting.workers import _watch
from zoo.data.open import open_data
from zoo.engine.runtime.signals import StopFlag
from zoo.select.tuning_search.liveness import SINCE, WORKER, fail_dead
from zoo.select.tuning_search.tune import run_tuning

optuna = pytest.importorskip("optuna")
LEADER = os.getpid()


def searched(out: Path, **how: Any) -> Any:
    """Search in a folder; every process but the one that leads stays in the first epoch of its first trial, and leaves a mark."""

    def stay(_record: dict[str, Any]) -> None:
        if os.getpid() != LEADER:
            (out.parent / str(os.getpid())).touch()
            time.sleep(60)

    whole = {
        "recipe": "full",
        "budget": None,
        "search": {"lr": "1e-4..1e-1,log"},
        "only": ["lr"],
        "storage": None,
        "study": "zoo",
        "pruner": "none",
    }
    options = {"epochs": 1, "batch_size": 8, "seed": 0, "on_epoch": stay}
    return run_tuning(
        model(), options, lambda: tuple(open_data(part) for part in DATA), **whole | {"out": out, "resume": False, "quiet": False} | how
    )


def killed(worker: int) -> None:
    os.kill(worker, signal.SIGKILL)
    while os.waitid(os.P_PID, worker, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:  # it stays a zombie
        time.sleep(0.001)


def test_a_search_goes_on_when_workers_are_killed_in_a_trial_and_all_trials_are_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tune"

    @contextmanager
    def two_workers(folder: Path, _stop: StopFlag) -> Iterator[None]:
        workers = [fork(lambda: searched(folder, trials=4, join=True), tmp_path / f"log-{number}") for number in range(2)]
        for worker in workers:
            await_mark(tmp_path / str(worker), worker)
        killed(workers[0])
        yield
        killed(workers[1])  # when this process has run all that was left
        assert [ended(worker) for worker in workers] == [-signal.SIGKILL] * 2

    found = searched(out, trials=4, beside=two_workers)
    told = capfd.readouterr().err
    states = [trial.state for trial in found.trials]
    assert (states.count("complete"), states.count("failed")) == (4, 2)
    lost = [trial for trial in found.trials if trial.state == "failed"]
    assert all(trial.note == "its process died" for trial in lost)
    assert all(f"trial {trial.number}: failed, as its process died" in told for trial in lost)
    assert not any((out / f"trial-{trial.number}" / "run.lock").exists() for trial in lost)
    assert found.best_trial.state == "complete"
    more = searched(out, trials=5, resume=True)
    assert [trial.value for trial in more.trials[: len(states)]] == [trial.value for trial in found.trials]
    assert [trial.state for trial in more.trials[len(states) :]] == ["complete"], "none but the one that is missing"
    told = capfd.readouterr().err
    assert "process died" not in told, "told once"
    assert told.count("trial ") == 1, "the trials of the earlier call are not told again"


def test_a_worker_that_was_killed_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    for code, told in {"os.kill(os.getpid(), 9)": "worker 2 ended with SIGKILL", "os._exit(7)": "worker 2 ended with code 7"}.items():
        for ending in (False, True):
            event = threading.Event()
            if ending:
                event.set()
            _watch(2, subprocess.Popen([sys.executable, "-S", "-c", f"import os; {code}"]), event)
            assert (told in capsys.readouterr().err) == (not ending)  # one that is stopped with the search needs no word


def test_another_process_of_the_same_number_is_not_the_worker() -> None:
    study = optuna.create_study()
    alive, dead = study.ask(), study.ask()
    for trial in (alive, dead):
        trial.set_user_attr(WORKER, f"{os.uname().nodename}:{os.getpid()}")
    dead.set_user_attr(SINCE, "1")  # as after a restart of the machine
    assert fail_dead(study) == [dead.number]


def test_a_trial_that_an_unforeseen_error_ends_does_not_count_as_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of the machine")

    monkeypatch.setattr("zoo.select.tuning_search.trials.run_job", broken)
    with pytest.raises(RuntimeError, match="a fault of the machine"):
        searched(tmp_path / "tune", trials=1)
    monkeypatch.undo()
    found = searched(tmp_path / "tune", trials=1, resume=True)
    assert [(trial.default, trial.state) for trial in found.trials] == [(True, "complete")]


def test_two_workers_may_mark_the_trial_of_a_dead_one_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    dead = study.ask()
    dead.set_user_attr(WORKER, f"{os.uname().nodename}:{os.getpid()}")
    dead.set_user_attr(SINCE, "1")
    real, first = study._storage.set_trial_user_attr, list[int]()

    def overtaken(*arguments: Any) -> None:
        real(*arguments)
        monkeypatch.undo()
        first.extend(fail_dead(study))

    monkeypatch.setattr(study._storage, "set_trial_user_attr", overtaken)
    assert fail_dead(study) == []
    assert first == [dead.number]


@pytest.mark.timeout(60)
def test_a_journal_whose_writer_was_killed_is_written_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock stays behind, and the last line has no end; names are relative, as on the command line."""
    from zoo.select.tuning_search.study import _storage

    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    optuna.create_study(storage=_storage("runs/study.journal"), study_name="zoo")
    with Path("runs/study.journal").open("ab") as file:
        file.write(b'{"op_code":2,"worker')
    monkeypatch.setattr("optuna.storages.journal.JournalFileOpenLock.__init__.__defaults__", (3,))
    storage = _storage("runs/study.journal")
    study = optuna.load_study(study_name="zoo", storage=storage)
    storage._backend._lock.acquire()
    study.set_user_attr("told", True)
    assert study_in(Path("runs")).user_attrs["told"]
