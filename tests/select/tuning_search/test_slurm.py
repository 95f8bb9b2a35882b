"""Workers of a search as jobs, which submitit runs on this machine here."""

from __future__ import annotations

import sys
from pathlib import Path

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


def test_a_parameter_that_submitit_does_not_have_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(OptionError, match="partitoin"),
        slurm_workers([sys.executable], 1, {"cluster": "local", "partitoin": "gpu"}, tmp_path, StopFlag()),
    ):
        pass
