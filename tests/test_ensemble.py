"""Ensembles: probabilities are averaged, and a folder of members opens as one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from tests.engine.tiny import images, model
from zoo.cli.app import main
from zoo.errors import OptionError, SavedModelError
from zoo.models.ensemble import Ensemble

PIXELS, LABELS = images(12)


def members(count: int = 3, **options: Any) -> list[Any]:
    """Return models whose heads differ."""
    found = [model(seed=seed, labels=["blue", "green", "red"], **options).eval() for seed in range(count)]
    for seed, one in enumerate(found):
        torch.manual_seed(seed)
        torch.nn.init.normal_(one.head.linear.weight)
    return found


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_the_probabilities_of_an_ensemble_are_the_mean_of_its_members(task: str) -> None:
    each = members(task=task)
    wanted = np.mean([one.predict_proba(PIXELS) for one in each], axis=0)
    assert np.abs(wanted - each[0].predict_proba(PIXELS)).max() > 0.05
    assert Ensemble(each).predict_proba(PIXELS) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_calibrated_members_count_with_their_temperatures_and_thresholds(task: str) -> None:
    each = members(2, task=task)
    for seed, one in enumerate(each):
        one.calibrate((images(36, seed=seed)[0], _labels(task, 36)))
    assert len({one.calibration.temperature for one in each}) == 2
    wanted = np.mean([one.predict_proba(PIXELS) for one in each], axis=0)
    ensemble = Ensemble(each)
    assert ensemble.predict_proba(PIXELS) == pytest.approx(wanted, abs=1e-6)
    if task == "multi-label":
        assert ensemble.thresholds is None or ensemble.thresholds == pytest.approx(np.mean([one.thresholds for one in each], axis=0))


def _labels(task: str, count: int) -> Any:
    names = images(count)[1]
    return names if task == "single-label" else [[name] for name in names]


def test_members_whose_heads_nobody_trained_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    each = [model(seed=seed) for seed in range(2)]
    each[1].note_random_head("a reason of its own")
    torch.nn.init.ones_(each[0].head.linear.weight)
    assert len(Ensemble(each).predict(PIXELS)) == 12
    assert "a reason of its own" in caplog.text


def test_the_outputs_of_a_regression_are_averaged() -> None:
    each = [model(1, task="regression", seed=seed) for seed in range(2)]
    for seed, one in enumerate(each):
        torch.nn.init.constant_(one.head.linear.weight, seed + 0.5)
    wanted = np.mean([one.predict(PIXELS) for one in each], axis=0)
    assert Ensemble(each).predict(PIXELS) == pytest.approx(wanted.tolist(), abs=1e-5)


@pytest.mark.usefixtures("toys")
def test_a_saved_ensemble_opens_as_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensemble = Ensemble(members())
    folder = ensemble.save(tmp_path / "ensemble")
    opened = zoo.load(folder)
    assert isinstance(opened, zoo.Ensemble)
    assert np.array_equal(opened.predict_proba(PIXELS), ensemble.predict_proba(PIXELS))
    assert opened.predict(PIXELS[:2]) == ensemble.predict(PIXELS[:2])
    assert set(opened.evaluate((PIXELS, LABELS))) >= {"accuracy", "loss"}
    assert opened.embed(PIXELS).shape == (12, 24)
    from PIL import Image

    Image.fromarray(PIXELS[0]).save(tmp_path / "one.png")
    with pytest.raises(SystemExit) as done:
        main(["predict", str(folder), str(tmp_path / "one.png"), "--json"])
    assert not done.value.code
    (row,) = json.loads(capsys.readouterr().out)
    assert row["label"] == opened.predict(PIXELS[:1])[0]
    with pytest.raises(SavedModelError, match="ensemble of 3 models; take the backbone of one"):
        zoo.get(str(folder))


def test_what_an_ensemble_cannot_do_is_said() -> None:
    ensemble = Ensemble(members())
    data = (PIXELS, LABELS)
    calls = (lambda: ensemble.fit(data), lambda: ensemble.plan(data), lambda: ensemble.calibrate(data), lambda: ensemble.freeze(1))
    for call in calls:
        with pytest.raises(OptionError, match="ensemble"):
            call()
    for wanted in (lambda: ensemble.predict(PIXELS, sets=0.8), lambda: ensemble.ood_score(PIXELS)):
        with pytest.raises(OptionError, match="an ensemble takes none: calibrate a member, or one model distilled from it"):
            wanted()
    with pytest.raises(OptionError, match="two models or more, and 1"):
        Ensemble(members(1))
    with pytest.raises(OptionError, match=r"(?s)task is 'multi-label'.*num_classes is 2"):
        Ensemble([model(), model(2, task="multi-label")])


@pytest.mark.usefixtures("toys")
def test_a_member_that_is_missing_or_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = Ensemble(members()).save(tmp_path / "ensemble")
    (folder / "member-1").rename(tmp_path / "elsewhere")
    with pytest.raises(SavedModelError, match="without its member 'member-1'"):
        zoo.load(folder)
    (folder / "ensemble.json").write_text(json.dumps({"members": ["../elsewhere", "member-0"]}))
    with pytest.raises(SavedModelError, match="members"):
        zoo.load(folder)
