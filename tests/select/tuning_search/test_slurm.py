"""Workers of a search as jobs, which submitit runs on this machine here."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from zoo.cli.commands.selecting.slurm import slurm_settings, slurm_workers
from zoo.engine.runtime.signals import StopFlag
from zoo.errors import OptionError

pytest.importorskip("submitit")


def test_settings_are_parsed_and_a_machine_without_slurm_is_told() -> None:
    assert slurm_settings("cluster=local, timeout_min=5") == {"cluster": "local", "timeout_min": 5}
    with pytest.raises(OptionError, match="not of the form NAME=VALUE"):
        slurm_settings("cluster=local,partition")
    with pytest.raises(OptionError, match="no sbatch on this machine"):
        slurm_settings("timeout_min=5")


def test_jobs_are_run_waited_for_and_a_failed_one_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import pathlib, sys, uuid; (pathlib.Path(sys.argv[1]) / uuid.uuid4().hex).touch(); sys.exit(3)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with slurm_workers(command, 2, {"cluster": "local", "timeout_min": 1}, tmp_path / "search", StopFlag()):
        pass
    assert len([path for path in tmp_path.iterdir() if path.is_file()]) == 2
    assert capsys.readouterr().err.count("ended with 3; its trial counts as failed") == 2


@pytest.mark.parametrize(("settings", "told"), [({"cluster": "local", "partitoin": "gpu"}, "partitoin"), ({"cluster": "slrum"}, "slrum")])
def test_what_submitit_does_not_know_is_refused(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=told), slurm_workers([sys.executable], 1, settings, tmp_path, StopFlag()):
        pass


def test_jobs_that_were_submitted_are_cancelled_where_a_later_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import submitit

    jobs, real = list[Any](), submitit.AutoExecutor.submit

    def refusing(self: Any, *args: Any) -> Any:
        if jobs:
            raise submitit.core.utils.FailedJobError("sbatch: error: invalid partition")
        jobs.append(real(self, *args))
        return jobs[0]

    monkeypatch.setattr(submitit.AutoExecutor, "submit", refusing)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        pytest.raises(OptionError, match=r"job 2 was refused: sbatch: error: invalid partition; correct --slurm"),
        slurm_workers(command, 2, {"cluster": "local", "timeout_min": 1}, tmp_path, StopFlag()),
    ):
        pass
    until = time.monotonic() + 30  # half of what the job would take
    while not jobs[0].done(force_check=True) and time.monotonic() < until:
        time.sleep(0.1)
    assert jobs[0].done()


def test_results_are_read_from_a_new_folder_that_nobody_else_can_write(tmp_path: Path) -> None:
    with slurm_workers([sys.executable, "-c", ""], 1, {"cluster": "local", "timeout_min": 1}, tmp_path, StopFlag()):
        pass
    (folder,) = (tmp_path / "slurm").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.glob("*_result.pkl"))
