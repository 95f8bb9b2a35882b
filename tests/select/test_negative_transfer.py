"""The guard against negative transfer: simpler methods beside a run, and a line that says aloud when one is better."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import zoo
from tests.engine.tiny import count_samples, difference, images, values
from zoo import cli
from zoo.data.open import open_data
from zoo.errors import OptionError
from zoo.models.task_model import TaskModel
from zoo.transfer import Distill, DomainAdaptation

TRAIN, VALID = images(48), images(24, seed=1)
OPTIONS: dict[str, Any] = {"recipe": "full", "batch_size": 8, "epochs": 2, "quiet": True, "augment": "none", "workers": 0}


def glyphnet() -> TaskModel:
    return zoo.get("zoo/glyphnet").adapt(3, in_chans=3)


def fit(out: Path, net: TaskModel, **options: Any) -> Any:
    return net.fit(open_data(TRAIN), open_data(VALID), out=out, baselines=True, **OPTIONS | options)


def test_a_run_that_loses_to_a_simpler_method_says_so_and_one_that_does_not_says_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "zoo"):
        bad = fit(tmp_path / "bad", glyphnet(), lr=1e-9)
        good = fit(tmp_path / "good", glyphnet(), lr=1e-3, epochs=6)
    rows = {row["name"]: row for row in bad.baselines}
    assert list(rows) == ["prior", "linear-probe", "from-scratch"]
    assert rows["from-scratch"]["score"] > 0.9 > bad.metrics["accuracy"]
    assert rows["from-scratch"]["lost"]
    assert 0.2 < rows["linear-probe"]["score"] < 0.9  # of features of grey characters, for colours
    assert rows["prior"]["score"] == pytest.approx(1 / 3)
    assert bad.verdict.startswith("the run lost to a simpler method: accuracy")
    assert "from-scratch" in bad.verdict
    assert [record.levelname for record in caplog.records if record.getMessage() == bad.verdict] == ["WARNING"]
    assert [row["lost"] for row in good.baselines] == [False, False, False]
    assert good.verdict.startswith("no baseline is better")
    record = json.loads((tmp_path / "bad" / "run.json").read_text())
    assert record["baselines"] == {"rows": bad.baselines, "verdict": bad.verdict}


def test_baselines_change_nothing_of_the_run_and_are_not_trained_twice(tmp_path: Path) -> None:
    nets = glyphnet(), glyphnet()
    run = fit(tmp_path / "with", nets[0])
    nets[1].fit(open_data(TRAIN), open_data(VALID), out=tmp_path / "without", **OPTIONS)
    assert difference(values(nets[0]), values(nets[1])) == 0.0
    again = glyphnet()
    seen = count_samples(again.backbone)
    assert fit(tmp_path / "with", again, resume=True).baselines == run.baselines
    assert seen == [0]
    assert difference(values(again), values(nets[0])) == 0.0


def test_a_method_is_compared_with_its_labels_alone(tmp_path: Path) -> None:
    teacher = glyphnet()
    teacher.fit(open_data(TRAIN), False, out=tmp_path / "teacher", **OPTIONS)
    run = fit(tmp_path / "run", glyphnet(), objective=Distill(teacher))
    alone = glyphnet()
    wanted = alone.fit(open_data(TRAIN), open_data(VALID), out=tmp_path / "alone", **OPTIONS).metrics["accuracy"]
    rows = {row["name"]: row for row in run.baselines}
    assert rows["labels-alone"]["score"] == wanted


def test_a_monitor_of_the_objective_alone_leaves_the_comparison_to_the_tasks_metric(tmp_path: Path) -> None:
    method = DomainAdaptation(VALID[0], method="coral")
    run = fit(tmp_path, glyphnet(), objective=method, epochs=1)
    assert run.monitor == "target_infomax"
    assert {row["metric"] for row in run.baselines} == {"accuracy"}
    assert all(row["score"] is not None for row in run.baselines)
    worse = [row for row in run.baselines if row["score"] > run.metrics["accuracy"]]
    assert [row["name"] for row in run.baselines if row["lost"]] == [row["name"] for row in worse]
    assert "(target_infomax, by which the epoch was chosen, is of the objective alone)" in run.verdict


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OptionError, match="valid=False: they are compared on validation data"):
        glyphnet().fit(open_data(TRAIN), False, out=tmp_path, baselines=True, **OPTIONS)
    with pytest.raises(OptionError, match="recipe 'auto' tries the linear probe"):
        glyphnet().fit(open_data(TRAIN), out=tmp_path, baselines=True, recipe="auto")
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "zoo/glyphnet", str(tmp_path), "--no-valid", "--baselines", "--recipe", "full"])
    assert stop.value.code == 2
    assert "--baselines cannot be given with --no-valid" in capsys.readouterr().err


def test_the_command_line_prints_a_table_and_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import PIL.Image

    for split, (pixels, labels) in (("train", TRAIN), ("val", VALID)):
        for index, label in enumerate(labels):
            folder = tmp_path / split / label
            folder.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(pixels[index]).save(folder / f"{index}.png")
    words = ["train", "zoo/glyphnet", str(tmp_path / "train"), "--valid", str(tmp_path / "val"), "--recipe", "full", "--epochs", "1"]
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--baselines", "--quiet", "--set", "augment=none", "--out", str(tmp_path / "run")])
    assert stop.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "baseline accuracy note prior 0.3333" in told
    assert "linear-probe" in told
    assert "24 validation samples" in told
