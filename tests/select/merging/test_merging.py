"""Greedy soup and greedy ensemble of saved models."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo.select
from tests.engine.tiny import difference, images, model, values
from zoo.cli.app import main
from zoo.errors import OptionError, OutputExistsError
from zoo.select.merging.soup import mean_values

VALID = images(36, seed=7)
LABELS = ["blue", "green", "red"]


@pytest.fixture
def runs(tmp_path: Path, toys: Any) -> list[str]:
    """Two good runs of one backbone, and one with broken values."""
    folders = []
    for seed in range(3):
        net = model(labels=LABELS)
        net.fit(images(36), False, recipe="full", epochs=2, lr=1e-2, batch_size=8, seed=seed, quiet=True, out=tmp_path / f"run-{seed}")
        if seed == 2:
            with torch.no_grad():
                net.head.linear.weight.neg_().mul_(50)
            net.save(tmp_path / "run-2", overwrite=True)
        folders.append(str(tmp_path / f"run-{seed}"))
    return folders


def test_a_soup_is_the_mean_of_the_runs_that_do_not_harm(runs: list[str], tmp_path: Path) -> None:
    found = zoo.select.soup(runs, VALID, out=tmp_path / "soup", metric="loss")
    assert runs[2] not in found.kept
    assert found.score <= min(found.scores.values())
    each = [values(zoo.load(folder)) for folder in found.kept]
    mean = {name: sum(one[name].double() for one in each) / len(each) for name in each[0]}
    opened = values(zoo.load(tmp_path / "soup"))
    assert all(float((opened[name].double() - mean[name]).abs().max()) < 1e-6 for name in mean if opened[name].is_floating_point())
    assert zoo.load(tmp_path / "soup").evaluate(VALID)["loss"] == pytest.approx(found.score)
    told = json.loads((tmp_path / "soup" / "soup.json").read_text())
    assert told["kept"] == found.kept
    assert [step["run"] for step in told["steps"]][-1] == runs[2]
    assert not told["steps"][-1]["added"]


def test_a_uniform_soup_is_the_mean_of_all_runs_and_says_that_it_is_worse(
    runs: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = zoo.select.soup(runs, VALID, out=tmp_path / "all", metric="loss", uniform=True)
    assert sorted(found.kept) == sorted(runs)
    each = [values(zoo.load(folder))["head.linear.weight"].double() for folder in runs]
    assert torch.allclose(values(zoo.load(tmp_path / "all"))["head.linear.weight"].double(), sum(each) / 3, atol=1e-6)  # type: ignore[arg-type]  # tensors
    assert found.score > min(found.scores.values())
    assert "the mean of all 3 has loss" in caplog.text


def test_a_soup_knows_all_that_its_runs_were_trained_on_and_has_no_calibration_of_one(runs: list[str], tmp_path: Path) -> None:
    first = zoo.load(runs[0])
    first.trained_on = ("other",)
    first.calibrate(images(36, seed=3))
    first.save(runs[0], overwrite=True)
    opened = zoo.select.soup(runs[:2], VALID, out=tmp_path / "soup", metric="loss").model
    kept = json.loads((tmp_path / "soup" / "soup.json").read_text())["kept"]
    wanted = {digest for folder in kept for digest in zoo.load(folder).trained_on}
    assert set(opened.trained_on) == wanted
    assert opened.calibration is None


def test_the_mean_is_that_of_all_and_whole_numbers_are_those_of_the_first() -> None:
    states = [{"w": torch.tensor([float(n)]), "n": torch.tensor(n)} for n in (1, 2, 6)]
    mean = mean_values(mean_values(states[0], 1, states[1]), 2, states[2])
    assert mean["w"].tolist() == [3.0]
    assert mean["n"].item() == 1


def test_an_ensemble_has_the_models_that_improve_it(runs: list[str], tmp_path: Path) -> None:
    found = zoo.select.ensemble(runs, VALID, out=tmp_path / "ensemble", metric="loss")
    assert runs[2] not in found.kept
    assert zoo.load(tmp_path / "ensemble").evaluate(VALID)["loss"] == pytest.approx(found.score, abs=1e-6)
    if len(found.kept) > 1:
        assert found.score < min(found.scores.values())
        probabilities = np.mean([zoo.load(folder).predict_proba(VALID[0]) for folder in found.kept], axis=0)
        assert zoo.load(tmp_path / "ensemble").predict_proba(VALID[0]) == pytest.approx(probabilities, abs=1e-6)
    alone = zoo.select.ensemble([runs[2], runs[0]], VALID, out=tmp_path / "alone", metric="loss")
    assert alone.kept[0] == runs[0]


def test_the_folds_of_a_cross_validation_are_candidates(tmp_path: Path, toys: Any, capsys: pytest.CaptureFixture[str]) -> None:
    net = model(labels=LABELS)
    found = zoo.select.cross_validate(net, images(36), folds=3, recipe="linear-probe", batch_size=8, quiet=True, out=tmp_path / "cv")
    from PIL import Image

    for number, (pixels, label) in enumerate(zip(*VALID, strict=True)):
        (tmp_path / "valid" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "valid" / label / f"{number}.png")
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted((tmp_path / "valid").rglob("*.png"))]
    (tmp_path / "valid.csv").write_text("\n".join(["picture,kind", *rows]))
    table = [str(tmp_path / "valid.csv"), "--columns", "file_name=picture,label=kind", "--batch-size", "5"]
    for name, data in (("soup", [str(tmp_path / "valid")]), ("ensemble", table)):
        out = tmp_path / name
        with pytest.raises(SystemExit) as done:
            main([name, str(found.dir), "--valid", *data, "--out", str(out), "--json"])
        assert not done.value.code
        told = json.loads(capsys.readouterr().out)
        assert set(told["scores"]) == {str(found.dir / f"fold-{number}") for number in range(3)}
        assert zoo.load(out).evaluate(tmp_path / "valid")["accuracy"] == pytest.approx(told["score"])
    first = "backbone.conv1.weight"
    assert difference({first: values(zoo.load(tmp_path / "soup"))[first]}, {first: values(net)[first]}) < 1e-6, "the backbone was frozen"


def test_all_that_is_wrong_is_told_at_once(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model(labels=["a", "b", "c"]).save(tmp_path / "classes")
    words = [*runs[:1], str(tmp_path / "classes"), str(tmp_path / "run-8"), str(tmp_path / "other"), "--metric", "acuracy", "--window", "3"]
    for command in ("soup", "ensemble"):
        with pytest.raises(SystemExit) as done:
            main([command, *words])
        assert done.value.code == 2
        told = capsys.readouterr().err.splitlines()
        for part in ("labels is", "run-8'", "other'", "--window '3'", "--metric is 'acuracy'", "--valid is missing", "--out is missing"):
            assert sum(part in line for line in told) == 1, part
    with pytest.raises(OptionError) as caught:
        zoo.select.soup(runs, tmp_path / "nowhere", out=runs[0], batch_size=0, precision="fp64", metrics=["mcc"], batchsize=3)
    for part in ("nowhere", "not empty", "batch_size is 0", "fp64", "metric=…", "did you mean 'batch_size'"):
        assert part in str(caught.value)
    assert str(caught.value).count(":\n") == 1, "one headline"


def test_other_backbones_and_classes_are_refused_with_all_differences(runs: list[str], tmp_path: Path) -> None:
    model(labels=["a", "b", "c"]).save(tmp_path / "classes")
    model(head="mlp", labels=LABELS).save(tmp_path / "mlp")
    with pytest.raises(OptionError, match=r"(?s)labels is.*head is 'mlp'"):
        zoo.select.soup([runs[0], tmp_path / "classes", tmp_path / "mlp"], VALID, out=tmp_path / "out")
    zoo.get("zoo/glyphnet", weights=False).adapt(3, labels=LABELS).save(tmp_path / "other")
    with pytest.raises(OptionError) as caught:
        zoo.select.soup([runs[0], tmp_path / "other"], VALID, out=tmp_path / "out")
    assert "/other': backbone is 'zoo/glyphnet', not 'toy/net' as that of " in str(caught.value)
    assert "inputs" not in str(caught.value)
    resized = model(labels=LABELS)
    resized.inputs = dataclasses.replace(resized.inputs, size=48)
    resized.save(tmp_path / "size")
    with pytest.raises(OptionError, match=r"inputs has size=\[48, 48\], not size=\[\d+, \d+\] as that of") as caught:
        zoo.select.ensemble([runs[0], tmp_path / "size"], VALID, out=tmp_path / "out")
    assert "mean=" not in str(caught.value)
    with pytest.raises(OptionError, match="two runs or more"):
        zoo.select.soup(runs[:1], VALID, out=tmp_path / "out")
    with pytest.raises(OptionError, match="given twice"):
        zoo.select.soup([runs[0], runs[0]], VALID, out=tmp_path / "out")
    with pytest.raises(OptionError, match="did you mean 'accuracy'"):
        zoo.select.ensemble(runs, VALID, out=tmp_path / "out", metric="acuracy")
    with pytest.raises(OutputExistsError, match="choose another folder, or remove it"):
        zoo.select.soup(runs, VALID, out=runs[0])
