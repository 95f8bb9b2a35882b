"""Learning without forgetting: the old task stays while the backbone learns a new one, and without its weight it is forgotten."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
import zoo.builtin
from tests.engine.rank_work import PlainPlugin, plain
from tests.engine.tiny import NAMES, difference, images, model, values
from zoo.errors import DiskFullError, OptionError, OutputExistsError, OutputPermissionError
from zoo.models.task_model import TaskModel
from zoo.registry.registry import Registry, use_registry
from zoo.transfer import LearnWithoutForgetting

OPTIONS: dict[str, Any] = {"recipe": "full", "batch_size": 8, "lr": 1e-2, "quiet": True, "epochs": 8, "augment": "none", "workers": 0}


@pytest.fixture(scope="module", autouse=True)
def _toys() -> Iterator[None]:
    use_registry(Registry(plugins=[zoo.builtin, PlainPlugin()], files=[]))
    yield
    use_registry()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> TaskModel:
    """A model of colours."""
    net = plain(labels=NAMES)
    net.fit(images(60), False, out=tmp_path_factory.mktemp("old") / "run", **OPTIONS)
    return net


def stripes(count: int, seed: int) -> tuple[Any, list[str]]:
    """Return coloured images whose label is the direction of their stripes."""
    pixels = images(count, seed=seed)[0].astype(int)
    labels = [("across", "down")[index // 3 % 2] for index in range(count)]
    for image, label in zip(pixels, labels, strict=True):
        rows = image if label == "across" else image.swapaxes(0, 1)
        rows[::2] -= 60
    return pixels.clip(0, 255).astype(np.uint8), labels


def begun(old: TaskModel) -> TaskModel:
    net = plain(2, labels=("across", "down"))
    net.backbone.load_state_dict(old.backbone.state_dict())
    return net


def test_the_old_task_stays_and_without_its_weight_it_is_forgotten(old: TaskModel, tmp_path: Path) -> None:
    tested, found = images(60, seed=3), {}
    assert old.evaluate(tested)["accuracy"] > 0.95
    for weight in (0.0, 3.0):
        net, keep = begun(old), tmp_path / f"kept-{weight}"
        method = LearnWithoutForgetting(old, weight=weight, keep=keep)
        net.fit(stripes(60, 1), False, out=tmp_path / str(weight), objective=method, **OPTIONS | {"lr": 3e-2, "epochs": 12})
        kept = zoo.load(keep)
        assert kept.labels == NAMES
        assert difference(values(kept.backbone), values(net.backbone)) == 0.0
        found[weight] = net.evaluate(stripes(60, 2))["accuracy"], kept.evaluate(tested)["accuracy"], gap(kept, old, tested[0])
    assert found[3.0][0] > 0.9
    assert found[3.0][2] < 0.25 * found[0.0][2], found


def gap(one: TaskModel, other: TaskModel, pixels: Any) -> float:
    """Return how much of the probability two models give to different classes."""
    return float(np.abs(one.predict_proba(pixels) - other.predict_proba(pixels)).sum(1).mean() / 2)


def test_a_plan_saves_nothing(old: TaskModel, tmp_path: Path) -> None:
    begun(old).plan(stripes(12, 1), False, objective=LearnWithoutForgetting(old, keep=tmp_path / "kept"), **OPTIONS)
    assert not (tmp_path / "kept").exists()


def test_a_run_that_ended_while_it_saved_the_old_task_goes_on(old: TaskModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, out, keep = begun(old), tmp_path / "run", tmp_path / "kept"
    method = LearnWithoutForgetting(old, keep=keep)
    how = {"out": out, "objective": method, **OPTIONS, "epochs": 2}

    def full(*_: Any, **__: Any) -> None:
        raise DiskFullError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("zoo.engine.train.fit.draw_curves", full)  # after both are saved
        with pytest.raises(DiskFullError):
            net.fit(stripes(24, 1), False, **how)
    assert difference(values(zoo.load(out).backbone), values(zoo.load(keep).backbone)) == 0.0
    for changed in ({"lr": 1e-3, "out": tmp_path / "other"}, {"objective": LearnWithoutForgetting(old, keep=out)}):
        with pytest.raises(OutputExistsError, match="keep: "):
            begun(old).fit(stripes(24, 1), False, **how | {"out": tmp_path / "third"} | changed)
    again = begun(old)
    again.fit(stripes(24, 1), False, resume=True, **how)
    assert difference(values(again.backbone), values(net.backbone)) == 0.0
    assert difference(values(zoo.load(keep).backbone), values(net.backbone)) == 0.0


def test_a_folder_that_cannot_be_written_is_told_before_anything_trains(old: TaskModel, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    net = begun(old)
    before = values(net)
    with pytest.raises(OutputPermissionError, match=r"keep: .*kept' cannot be written, as .*file' is no folder"):
        net.fit(stripes(12, 1), False, out=tmp_path / "run", objective=LearnWithoutForgetting(old, keep=tmp_path / "file/kept"), **OPTIONS)
    assert difference(before, values(net)) == 0.0


def test_what_cannot_be_kept_is_refused(old: TaskModel, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    other = copy.deepcopy(old)
    other.head.pool.how = "max"  # type: ignore[union-attr]  # a linear head has a pool
    cases: list[tuple[Any, Any, type[Exception], str]] = [
        (old, plain(2, seed=4), OptionError, "the model does not start from its backbone"),
        (model(), plain(2), OptionError, "the model does not start from its backbone"),
        (plain(2, task="regression"), plain(2), OptionError, "its task is regression"),
        (other, begun(old), OptionError, "its head reads features by 'max', and the new one by 'avg'"),
    ]
    for wrong, net, error, told in cases:
        with pytest.raises(error, match=told):
            net.fit(stripes(12, 1), False, out=tmp_path / "run", objective=LearnWithoutForgetting(wrong), **OPTIONS)
    with pytest.raises(OutputExistsError, match=r"keep: .*there' exists"):
        begun(old).fit(
            stripes(12, 1), False, out=tmp_path / "run", objective=LearnWithoutForgetting(old, keep=tmp_path / "there"), **OPTIONS
        )
    with pytest.raises(OptionError, match=r"temperature is -1.*\n.*weight is 'much'.*\n.*keep is 3"):
        LearnWithoutForgetting("x", temperature=-1, weight="much", keep=3)  # type: ignore[arg-type]
