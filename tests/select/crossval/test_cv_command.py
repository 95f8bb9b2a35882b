"""The command cv."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import zoo
from tests.select.command_line import folder_of_images, run
from zoo.cli.commands.selecting.crossval import tables
from zoo.select.crossval.result import CrossValidation, FoldResult


@pytest.mark.usefixtures("toys")
def test_the_command_prints_the_folds_and_its_folder_is_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = folder_of_images(tmp_path / "data"), tmp_path / "cv"
    words = ["cv", "toy/net", str(data), "--weights", "none", "--folds", "3", "--recipe", "linear-probe", "--out", str(out), "--quiet"]
    assert run(*words) == 0
    printed = capsys.readouterr().out
    assert "mean of the folds [95 %]" in printed
    assert printed.startswith("fold "), "one repeat needs no column for it"
    assert str(out) in printed
    assert run(*words, "--resume", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [fold["held_out"] for fold in told["folds"]] == [6, 6, 6]
    assert told["scores"]["accuracy"]["low"] <= told["scores"]["accuracy"]["mean"]
    model = zoo.load(out)
    assert isinstance(model, zoo.Ensemble)
    assert len(model.members) == 3
    probabilities = sum(zoo.load(out / f"fold-{number}").predict_proba(data) for number in range(3)) / 3
    assert model.predict_proba(data) == pytest.approx(probabilities, abs=1e-6)


@pytest.mark.usefixtures("toys")
def test_a_metric_on_request_is_measured_and_compared_in_its_direction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_of_images(tmp_path / "data")
    words = ["cv", "toy/net", str(data), "--weights", "none", "--folds", "2", "--repeats", "2", "--metric", "brier", "--quiet"]
    assert run(*words, "--recipe", "linear-probe", "--out", str(tmp_path / "a")) == 0
    printed = capsys.readouterr().out
    assert printed.split()[:5] == ["repeat", "fold", "train", "held", "out"]
    assert [line.split()[0] for line in printed.splitlines()[1:5]] == ["0", "0", "1", "1"]
    assert run(*words, "--recipe", "full", "--epochs", "1", "--out", str(tmp_path / "b")) == 0
    capsys.readouterr()
    assert run("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metric"] == "brier"
    (pair,) = told["pairs"]
    assert pair["better"] == (pair["first"] if pair["difference"] < 0 else pair["second"]), "the lowest Brier score is the best"


def test_folds_of_equal_scores_are_not_taken_as_certain(tmp_path: Path) -> None:
    folds = tuple(FoldResult(number, 0, 8, 4, {"accuracy": 1.0, "loss": 0.1 * number}, 1.0) for number in range(3))
    said = CrossValidation(folds, "accuracy", {}, tmp_path)
    assert said.without_width.startswith("no fold differs from another in accuracy:")
    assert said.without_width in tables(said)
    assert not CrossValidation(folds[:2], "accuracy", {}, tmp_path).without_width, "two folds have no interval"


@pytest.mark.usefixtures("toys")
def test_mistakes_are_usage_errors_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_of_images(tmp_path / "data", 6)
    table = tmp_path / "table.csv"
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name},p{number}" for number, path in enumerate(sorted(data.rglob("*.png")))]
    table.write_text("\n".join(["file_name,label,patient", *rows]) + "\n")
    start = ["cv", "toy/net", str(table), "--weights", "none", "--quiet"]
    mistakes = {
        ("--recipe", "auto"): "name the recipe",
        ("--metric", "acuracy"): "did you mean 'accuracy'",
        ("--metric", "brire", "--folds", "1"): "did you mean 'brier'",
        ("--folds", "1", "--metric", "brire"): "folds is 1",
        ("--group", "pateint"): "(did you mean 'patient'?); it has: 'file_name', 'label', 'patient'. Name yours with --group",
        ("--folds", "5"): "the largest class has 2 samples, fewer than 5 folds; take at most --folds 2",
        ("--set", "patience=2"): "patience",
    }
    for words, told in mistakes.items():
        assert run(*start, *words) in (1, 2)
        assert told in capsys.readouterr().err
    assert run(*start, "--valid", str(data)) == 2
