"""The command tune, with a second process."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import zoo
from tests.select.command_line import folder_of_images, run
from tests.select.tuning_search.test_tune import study_in
from zoo.cli.commands.selecting.tune import searched, trial_table
from zoo.cli.commands.selecting.workers import _without
from zoo.engine.rundir.run_folder import Run
from zoo.errors import OptionError
from zoo.select.tuning_search.result import TrialResult, Tuning

pytest.importorskip("optuna")


def test_two_processes_search_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = folder_of_images(tmp_path / "data", 30), tmp_path / "tune"
    words = ["tune", "zoo/glyphnet", str(data), "--epochs", "1", "--image-size", "16", "--batch-size", "8", "--out", str(out), "--quiet"]
    words += ["--search", "lr=1e-4..1e-2,log", "--only", "lr", "--workers", "2"]
    assert run(*words, "--trials", "6", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert 6 <= len(told["trials"]) <= 7
    assert told["trials"][0]["default"]
    assert zoo.load(told["best"]["dir"]).predict([str(next(data.rglob("*.png")))])
    assert run(*words, "--trials", "6", "--resume") == 0
    printed = capsys.readouterr().out
    assert "the default" in printed
    assert str(out / "best") in printed


def test_the_deadline_holds_for_those_who_join_and_a_resumed_call_has_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = folder_of_images(tmp_path / "data", 18), tmp_path / "tune"
    words = ["tune", "zoo/glyphnet", str(data), "--epochs", "1", "--image-size", "16", "--batch-size", "8", "--out", str(out), "--quiet"]
    words += ["--search", "lr=1e-4..1e-2,log", "--only", "lr"]
    assert run(*words, "--trials", "1", "--budget", "60s") == 0
    assert run(*words, "--trials", "2", "--budget", "60s", "--join") == 0
    assert len(study_in(out).trials) == 2, "there is time left"
    now = time.time
    monkeypatch.setattr("zoo.select.tuning_search.study.time.time", lambda: now() + 100)
    assert run(*words, "--trials", "4", "--budget", "60s", "--join") == 0
    assert len(study_in(out).trials) == 2, "the time of the one that leads is over, whatever is left of its own"
    monkeypatch.undo()
    assert run(*words, "--trials", "3", "--resume") == 0
    assert len(study_in(out).trials) == 3
    assert study_in(out).user_attrs["deadline"] is None


def test_mistakes_are_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_of_images(tmp_path / "data", 18)
    start = ["tune", "zoo/glyphnet", str(data), "--image-size", "16", "--quiet"]
    for words, told in {
        ("--search", "lr"): "NAME=RANGE",
        ("--search", "lr=5"): "neither a range",
        ("--recipe", "auto"): "leave it out, or name one",
        ("--workers", "0"): "1 or more",
        ("--join",): "--out",
        ("--budget", "soon"): "duration",
        ("--trials", "0"): "--trials is 0",
    }.items():
        assert run(*start, *words) == 2
        assert told in capsys.readouterr().err
    assert run(*start, "--search", "lrr=1..2", "--only", "batchsize", "--workers", "0", "--trials", "0", "--set", "epoch=1") == 2
    told_at_once = capsys.readouterr().err
    for part in ("did you mean 'lr'", "did you mean 'batch_size'", "--workers is 0", "--trials is 0", "did you mean 'epochs'"):
        assert part in told_at_once


def test_mistakes_of_all_kinds_stand_in_one_list_without_headlines_between(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "own.toml"
    config.write_text("epoch = 3\nlearning = 1\n")
    words = ("--config", str(config), "--search", "lrr=1..2", "--trials", "0", "--workers", "0", "--join")
    assert run("tune", "zoo/glyfnet", str(tmp_path), *words) == 2
    headline, *lines = capsys.readouterr().err.splitlines()
    faults = [line for line in lines if line.startswith("  - ")]
    assert headline == "error: this search cannot run:"
    assert [line for line in lines if line.startswith("    ")] == [], "no list stands inside the list"
    assert sum(str(config) in fault for fault in faults) == 2, "each fault names its file, as the headline of its own list did"
    assert any("did you mean 'zoo/glyphnet'" in fault for fault in faults)
    assert len(lines) - len(faults) == 2, "the remedies of two lists stand at the end"
    assert lines[-1].startswith("Such as")
    assert run("tune", "zoo/glyphnet", str(tmp_path), "--nested", "1", "--workers", "2", "--trials", "0") == 2
    told = capsys.readouterr().err
    for part in ("--nested is 1", "--workers: ", "--trials is 0"):
        assert told.count(part) == 1


def test_messages_of_the_job_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = folder_of_images(tmp_path / "data", 24)
    caplog.set_level("INFO", logger="zoo")
    assert run("tune", "zoo/glyphnet", str(data), "--image-size", "16", "--epochs", "1", "--trials", "1", "--out", str(tmp_path / "t")) == 0
    for message in ("epochs is 1 and the recipe", "no validation data given"):
        assert sum(message in record.getMessage() for record in caplog.records) == 1


def test_a_nested_search_names_its_own_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_of_images(tmp_path / "data", 18)
    assert run("tune", "zoo/glyphnet", str(data), "--image-size", "16", "--nested", "9", "--quiet", "--out", str(tmp_path / "tune")) == 1
    assert "take at most --nested 6" in capsys.readouterr().err


def test_errors_in_the_unit_of_small_targets_keep_their_digits(tmp_path: Path) -> None:
    trials = (TrialResult(0, "complete", 2.5e-9, "full", {}, 1.0, default=True), TrialResult(1, "complete", 1.25e-9, "full", {}, 1.0))
    found = Tuning(trials, Run([], {}, tmp_path, 1, "mae"), trials[1], "mae", lower=True, dir=tmp_path)
    for told in (found.verdict, trial_table(found)):
        assert "1.25e-09" in told
        assert "2.5e-09" in told


def test_a_search_without_held_out_samples_names_a_remedy_that_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_of_images(tmp_path / "data", 2)
    assert run("tune", "zoo/glyphnet", str(data), "--image-size", "16", "--quiet") == 1
    told = capsys.readouterr().err
    assert "give a validation set (--valid)" in told
    assert "--no-valid" not in told


def test_the_command_of_a_worker_has_its_own_folder() -> None:
    words = ["tune", "x", "d", "--out", "a", "--workers=2", "--resume", "--lr", "1"]
    assert _without(words, ("--resume",), ("--out", "--workers")) == ["tune", "x", "d", "--lr", "1"]
    assert searched(["lr=1..2,log"]) == {"lr": "1..2,log"}
    with pytest.raises(OptionError):
        searched(["lr="])
