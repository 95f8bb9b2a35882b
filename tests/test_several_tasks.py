"""Several tasks on one backbone: one table or a data set each, missing labels, solved heads, results by task, bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
import zoo.builtin
from tests.engine.tiny import images, model
from tests.select.command_line import run
from tests.toy import toy_spec
from zoo.data.open import open_data, open_train_valid
from zoo.errors import DataError, OptionError
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.tasks.several import SeveralTasks

TASKS = "kind=single-label:3,light=regression:1,tags=multi-label:2"
TAGS = {"red": ["warm"], "green": [], "blue": ["cold", "dark"]}


def labels(pixels: Any, kinds: list[str]) -> dict[str, list[Any]]:
    return {"kind": kinds, "light": [float(image.mean()) for image in pixels]}


def toy(tasks: dict[str, Any], **options: Any) -> TaskModel:
    torch.manual_seed(0)
    return Backbone(toy_spec(), weights=False).adapt_tasks(tasks, **options)


def holey(count: int = 48) -> tuple[Any, dict[str, list[Any]]]:
    """Return images of which a third lacks each label, some both."""
    pixels, kinds = images(count)
    found = labels(pixels, kinds)
    source = np.random.default_rng(0)
    return pixels, {
        name: [None if gone else label for label, gone in zip(own, source.random(count) < 0.3, strict=True)] for name, own in found.items()
    }


def test_the_name_of_several_tasks_says_what_they_are_made_of() -> None:
    task = zoo.find_task(TASKS)
    assert isinstance(task, SeveralTasks)
    assert task.name == TASKS
    assert [member.columns for member in task.members] == [slice(0, 3), slice(3, 4), slice(4, 6)]
    built = toy({"kind": 3, "light": "regression", "tags": {"task": "multi-label", "classes": 2}})
    assert (built.task, built.num_classes) == (TASKS, 6)
    named = toy({"kind": ["a", "b"], "size": {"task": "regression", "outputs": 2}})
    assert named.labels == ("kind/a", "kind/b", "size/1", "size/2")


def test_messages_say_several_tasks_in_words() -> None:
    net, words = toy({"kind": 3, "light": {"task": "regression"}}), r"the task is several: kind \(single-label\), light \(regression\)"
    for call in (lambda: net.predict("data", top=2), lambda: net.calibrate("data"), lambda: net.predict("data", thresholds=0.4)):
        with pytest.raises(OptionError, match=words):
            call()


def test_all_that_is_wrong_with_tasks_is_told_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        zoo.find_task("kind=single-label,kind=regresion,words=token-classification,a/b=regression")
    for part in ("two tasks are called 'kind'", "did you mean 'regression'", "'words' labels words", "no input in common", "has '/'"):
        assert part in str(caught.value)
    with pytest.raises(OptionError) as caught:
        toy({"kind": {"task": "single-label"}, "other": {"clases": 3}, "one": 1})
    for part in ("'kind' (single-label) has no number of classes", "did you mean 'classes'", "needs at least 2"):
        assert part in str(caught.value)
    with pytest.raises(OptionError, match="there is one task"):
        toy({"kind": 3})
    with pytest.raises(OptionError, match="name all or none"):
        toy({"kind": ["a", "b"], "place": 3})


def test_a_missing_label_is_in_no_loss_and_gives_no_gradient() -> None:
    task = zoo.find_task("kind=single-label:3,light=regression:1")
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([[1, 0, 0, math.nan], [0, 0, 1, 2.0], [math.nan] * 3 + [0.5], [math.nan] * 4])
    loss = task.loss(logits, targets)
    expected = torch.nn.functional.cross_entropy(logits[:2, :3], torch.tensor([0, 2]), reduction="sum")
    expected = expected + (logits[1, 3] - 2) ** 2 + (logits[2, 3] - 0.5) ** 2
    assert torch.allclose(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[3].any()
    assert not gradient[2, :3].any()
    assert not gradient[0, 3]


def test_the_heads_of_a_linear_probe_are_those_of_the_tasks_by_themselves(tmp_path: Path) -> None:
    pixels, found = holey()
    both = toy({"kind": 3, "light": "regression"})
    both.fit((pixels, found), False, recipe="linear-probe", out=tmp_path / "both", quiet=True)
    for name, columns, options in (("kind", slice(0, 3), {}), ("light", slice(3, 4), {"task": "regression"})):
        rows = [row for row, label in enumerate(found[name]) if label is not None]
        alone = model(3 if name == "kind" else 1, **options)
        alone.fit((pixels[rows], [found[name][row] for row in rows]), False, recipe="linear-probe", out=tmp_path / name, quiet=True)
        assert torch.allclose(both.head.linear.weight[columns], alone.head.linear.weight, atol=1e-5)
        assert torch.allclose(both.head.linear.bias[columns], alone.head.linear.bias, atol=1e-4)


def test_a_data_set_for_each_task_is_one_table_with_missing_labels() -> None:
    (first, kinds), (second, _) = images(6), images(5, seed=1)
    light = [float(image.mean()) for image in second]
    of_each = open_data({"kind": (list(first), kinds), "light": (list(second), light)}, task="kind=single-label,light=regression")
    missing: list[Any] = [None]
    table = open_data(
        ([*first, *second], {"kind": kinds + missing * 5, "light": missing * 6 + light}), task="kind=single-label,light=regression"
    )
    assert np.array_equal(of_each.targets, table.targets, equal_nan=True)
    assert of_each.classes == ("kind/blue", "kind/green", "kind/red", "light")
    assert of_each.missing() == {"kind": 5, "light": 6}
    assert of_each.counts() == {"kind/blue": 2, "kind/green": 2, "kind/red": 2, "light": 5}
    again = open_data(of_each.select([0, 7, 3]), task="kind=single-label,light=regression", classes=of_each.classes)
    assert np.array_equal(again.targets, table.targets[[0, 7, 3]], equal_nan=True)


def test_held_out_samples_have_labels_of_each_task() -> None:
    (first, kinds), (second, _) = images(30), images(10, seed=1)
    source = {"kind": (list(first), kinds), "light": (list(second), [float(image.mean()) for image in second])}
    for seed in range(5):
        train, valid = open_train_valid(source, task="kind=single-label,light=regression", seed=seed)
        assert valid is not None
        assert {name: 8 - number for name, number in valid.missing().items()} == {"kind": 6, "light": 2}
        assert min(valid.counts().values()) == min(train.counts().values()) / 4 == 2


def test_metrics_predictions_and_columns_are_by_task(tmp_path: Path) -> None:
    pixels, kinds = images(30)
    net = toy({"kind": 3, "light": "regression", "tags": {"task": "multi-label", "classes": 3}})
    truth = labels(pixels, kinds) | {"tags": [TAGS[kind] for kind in kinds]}
    done = net.fit((pixels, truth), recipe="linear-probe", out=tmp_path / "run", quiet=True)
    assert done.monitor == "mean"
    parts = (done.metrics["kind/accuracy"], done.metrics["light/r2"], done.metrics["tags/map"])
    assert done.metrics["mean"] == pytest.approx(np.mean(parts))
    assert done.metrics["kind/accuracy"] == 1.0
    assert net.labels == ("kind/blue", "kind/green", "kind/red", "light", "tags/cold", "tags/dark", "tags/warm")
    first = net.predict(pixels[:2])[0]
    assert first["kind"] == "blue"
    assert first["tags"] == ("cold", "dark")
    assert first["light"] == pytest.approx(truth["light"][0], rel=0.05)
    shares = net.predict_proba(pixels[:2])
    assert shares[0, :3].sum() == pytest.approx(1)
    assert shares[0, 3] == pytest.approx(first["light"])

    found = net.evaluate((pixels, truth | {"kind": [None, *kinds[1:]]}), intervals=0.9)
    assert found["kind/accuracy_low"] <= found["kind/accuracy"] <= found["kind/accuracy_high"]
    columns = found.predictions()
    assert columns["truth_kind"][:2] == [None, "green"]
    assert columns["prediction_tags"][0] == "cold|dark"
    assert columns["probability_kind_blue"][0] == pytest.approx(shares[0, 0])
    assert not [name for name in columns if name.startswith("probability_light")]
    assert found.of("kind").confusion()[1].sum() == 29
    assert found.of("light").mistakes()["difference"][0] == pytest.approx(
        max(np.abs(np.subtract(columns["prediction_light"], truth["light"])))
    )
    assert found.baselines()["prior"]["kind/accuracy"] == pytest.approx(10 / 29)
    with pytest.raises(OptionError, match=r"evaluation\.of\('kind'\)\.confusion\(\)"):
        found.confusion()
    with pytest.raises(OptionError, match="did you mean 'kind'"):
        found.of("kin")
    assert set(net.evaluate({"kind": (pixels, kinds)})) >= {"mean", "kind/accuracy"}
    assert "light/mae" not in net.evaluate({"kind": (pixels, kinds)})


def test_one_task_may_choose_the_epoch(tmp_path: Path) -> None:
    pixels, found = holey()
    net = toy({"kind": 3, "light": "regression"})
    done = net.fit((pixels, found), monitor="light/mae", recipe="full", epochs=3, out=tmp_path / "run", quiet=True)
    assert done.metrics["light/mae"] == min(record["light/mae"] for record in done.history)
    with pytest.raises(OptionError, match="did you mean 'light/mae'"):
        net.fit((pixels, found), monitor="light/mea", out=tmp_path / "other")


def test_texts_in_windows_have_one_prediction_by_task() -> None:
    task = zoo.find_task("kind=single-label:2,light=regression:1")
    pooled = task.pool(np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 3.0]]))
    assert pooled[0] == pytest.approx(pooled[1])
    assert pooled[2] == 2.0


def test_mixed_samples_and_class_weights_leave_missing_labels_out(tmp_path: Path) -> None:
    pixels, found = holey()
    net = toy({"kind": 3, "light": "regression"})
    options: dict[str, Any] = {"mixup": 0.5, "augment": "light", "class_weights": "balanced", "label_smoothing": 0.1}
    done = net.fit((pixels, found), recipe="full", epochs=2, out=tmp_path / "run", quiet=True, **options)
    assert all(math.isfinite(record["train_loss"]) for record in done.history)
    with pytest.raises(OptionError, match="balanced_sampling"):
        net.fit((pixels, found), balanced_sampling=True, out=tmp_path / "other")
    with pytest.raises(OptionError, match="one task, and there are several"):
        zoo.select.rank((pixels, found), task=net.task)
    with pytest.raises(OptionError, match="calibration is for"):
        net.calibrate((pixels, found))
    with pytest.raises(OptionError, match="one value per sample"):
        net.fit((pixels, found), loss=lambda logits, targets: logits.sum(1), out=tmp_path / "other")


def test_bad_data_of_several_tasks_are_told_before_anything_trains(tmp_path: Path) -> None:
    pixels, kinds = images(12)
    net, none = toy({"kind": 3, "light": "regression"}), [None] * 12
    (tmp_path / "texts.csv").write_text("text,label\nsome words,1.0\nother words,2.0\n")
    faults: list[tuple[Any, Any, str]] = [
        ({"kind": (pixels, kinds), "lihgt": (pixels, kinds)}, None, "did you mean 'light'"),
        ((pixels, {"kind": kinds, "light": none}), False, "no training sample has a label of task 'light'"),
        ({"kind": (pixels, kinds)}, False, "no training sample has a label of task 'light'"),
        ((pixels, {"kind": kinds}), None, "task 'light' has no labels"),
        ((pixels, kinds), None, "a data set for each"),
        ((pixels, {"kind": [*kinds[:-1], "pink"], "light": [1.0] * 12}), False, "task 'kind' has 4 classes, and the model 3"),
        ((pixels, {"kind": kinds, "light": ["bright"] * 12}), False, "task 'light': regression needs finite numbers"),
        ({"kind": (pixels, kinds), "light": tmp_path / "texts.csv"}, None, "task 'light': .*texts, and the model reads files"),
    ]
    for train, valid, told in faults:
        with pytest.raises((DataError, OptionError), match=told):
            net.fit(train, valid, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_command_line_trains_measures_and_predicts_several_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def zoo_command(*words: str) -> tuple[int, str, str]:
        code = run(*words)
        return code, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    rows, source = ["file_name,species,age"], np.random.default_rng(0)
    for number in range(24):
        kind = ("dark", "light")[number % 2]
        pixels = (source.integers(0, 80, (32, 32)) + 150 * (number % 2)).astype("uint8")
        Path("photos", kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(f"photos/{kind}/{number}.png")
        rows.append(f"photos/{kind}/{number}.png,{kind if number % 5 else ''},{pixels.mean() if number % 3 else ''}")
    Path("table.csv").write_text("\n".join(rows))
    kinds = ["--task", "kind=single-label,age=regression", "--columns", "kind=species"]
    probe = ["--recipe", "linear-probe", "--quiet"]
    code, _, error = zoo_command("train", "zoo/glyphnet", "table.csv", *kinds, *probe, "--out", "run", "--objective", "multi-task")
    assert code == 0, error
    code, out, error = zoo_command("eval", "run", "table.csv", "--columns", "kind=species", "--json")
    assert code == 0, error
    assert json.loads(out)["kind/accuracy"] == 1.0
    code, out, error = zoo_command("eval", "run", "kind=photos,age=table.csv", "--json")
    assert code == 0, error
    assert json.loads(out)["samples"] == 48
    code, out, error = zoo_command("eval", "run", "kind=photos", "--json")
    assert code == 0, error
    assert json.loads(out)["kind/majority"] == 0.5
    code, out, error = zoo_command("predict", "run", "photos/dark/0.png", "--json")
    assert code == 0, error
    (row,) = json.loads(out)
    assert row["label"]["kind"] == "dark"
    assert set(row["probabilities"]) == {"kind/dark", "kind/light"}
    code, out, error = zoo_command("predict", "run", "photos/dark/0.png")
    assert "kind=dark, age=" in out
    code, _, error = zoo_command("train", "zoo/glyphnet", "kind=photos,aeg=table.csv", *kinds[:2], *probe)
    assert code != 0
    assert "did you mean 'age'" in error
    code, _, error = zoo_command("eval", "run", "kind=photos", "--confusion")
    assert "of('kind')" in error


def test_a_folder_of_classes_for_several_tasks_is_told_to_name_its_task(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "red" / "0.png")
    with pytest.raises(OptionError, match=r"labels of the tasks kind, light.*kind=FOLDER on the command line") as raised:
        toy({"kind": 3, "light": "regression"}).evaluate(tmp_path)
    assert "label_columns" not in str(raised.value)
