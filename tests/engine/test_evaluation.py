"""What an evaluation gives beside its metrics, and thresholds of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

import zoo
from tests.engine.tiny import NAMES, images, model
from zoo.engine.inference.confidence_intervals import weighted_metrics
from zoo.engine.inference.metrics import compute_metrics
from zoo.errors import OptionError, SavedModelError
from zoo.models.task_model import TaskModel
from zoo.tasks.find import BUILTIN
from zoo.tasks.scores import sigmoid
from zoo.tasks.thresholds import best_thresholds

OPTIONS: dict[str, Any] = {"recipe": "full", "epochs": 2, "batch_size": 8, "lr": 1e-2, "quiet": True}


def many(count: int = 24, seed: int = 0) -> tuple[Any, list[list[str]]]:
    """Images with none, one or several labels."""
    pixels, labels = images(count, seed)
    return pixels, [[] if number % 4 == 3 else [label, "red"][: 1 + number % 2] for number, label in enumerate(labels)]


def labelled(**options: Any) -> TaskModel:
    return model(3, task="multi-label", labels=NAMES, **options)


def test_macro_f1_is_the_mean_over_classes_that_occur_as_in_scikit_learn() -> None:
    logits, targets = np.eye(5)[[0, 0, 1, 3]], np.array([0, 1, 1, 0])
    found = compute_metrics(BUILTIN["single-label"], logits, targets)["macro_f1"]
    assert found == reference.f1_score(targets, logits.argmax(1), average="macro", zero_division=0.0)
    assert found > reference.f1_score(targets, logits.argmax(1), labels=range(5), average="macro", zero_division=0.0)
    assert weighted_metrics("single-label", logits, targets, np.ones((1, 4)))["macro_f1"][0] == pytest.approx(found)


def test_predictions_confusion_and_mistakes_are_those_behind_the_metrics() -> None:
    net, data = model(labels=NAMES), images(12)
    found = net.evaluate(data)
    shares, labels = net.predict_proba(data[0]), net.predict(data[0])
    rows = found.predictions()
    assert rows["input"][3] == "row 3"
    assert (rows["truth"], rows["prediction"]) == (data[1], labels)
    assert np.array_equal(np.stack([rows[f"probability_{name}"] for name in NAMES], 1).astype(np.float32), shares)
    names, matrix = found.confusion()
    assert names == list(NAMES)
    assert np.array_equal(matrix, reference.confusion_matrix(data[1], labels, labels=list(NAMES)))
    wrong = found.mistakes()
    assert wrong["probability"] == sorted(wrong["probability"], reverse=True)
    assert len(wrong["input"]) == round((1 - found["accuracy"]) * 12) > 0
    for name, truth, prediction, share in zip(*(wrong[key] for key in ("input", "truth", "prediction", "probability")), strict=True):
        row = int(name.removeprefix("row "))
        assert (data[1][row], labels[row]) == (truth, prediction) != (truth, truth)
        assert share == shares[row].max()
    report = reference.classification_report(data[1], labels, output_dict=True, zero_division=np.nan)
    for name, values in found.per_class().items():
        assert values["f1"] == pytest.approx(report[name]["f1-score"], nan_ok=True)
        assert values["recall"] == pytest.approx(report[name]["recall"], nan_ok=True)


def test_a_regression_has_differences_and_no_classes() -> None:
    net = model(1, task="regression")
    found = net.evaluate((images(6)[0], [0.0, 1.0, 2.0, 30.0, 4.0, 5.0]))
    wrong = found.mistakes()
    assert wrong["input"][0] == "row 3"
    assert wrong["difference"] == sorted(wrong["difference"], reverse=True)
    assert np.mean(wrong["difference"]) == pytest.approx(found["mae"], rel=1e-5)
    assert found.predictions()["truth"][3] == 30
    for refused in (found.confusion, found.per_class):
        with pytest.raises(OptionError, match="regression"):
            refused()


def test_samples_that_cannot_be_read_count_in_no_metric(tmp_path: Path) -> None:
    import csv

    import PIL.Image

    pixels, labels = images(9)
    for number, image in enumerate(pixels):
        PIL.Image.fromarray(image).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"no picture")
    with (tmp_path / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "label", "group"), *((f"{n}.png", label, f"p{n}") for n, label in enumerate(labels))])
    net = model(labels=NAMES)
    found = net.evaluate(tmp_path / "data.csv", on_error="skip")
    rest = [row for row in range(9) if row != 4]
    assert dict(found) == pytest.approx(dict(net.evaluate((pixels[rest], [labels[row] for row in rest]))), rel=1e-5)
    rows = found.predictions()
    assert rows["prediction"][4] is None
    assert rows["truth"][4] == labels[4]
    assert rows["group"][4] == "p4"
    assert [bool(error) for error in rows["error"]] == [row == 4 for row in range(9)]
    assert len(found.mistakes()["input"]) == round((1 - found["accuracy"]) * 8)


def test_thresholds_are_those_of_the_highest_f1_of_each_label() -> None:
    source = np.random.default_rng(0)
    logits, targets = source.normal(size=(40, 3)) - 1.5, (source.random((40, 3)) < 0.3).astype(np.float32)
    targets[:, 2] = 0
    found = best_thresholds(logits, targets)
    assert found[2] == 0.5
    shares = sigmoid(logits)
    for k in range(2):
        best = max(reference.f1_score(targets[:, k], shares[:, k] >= cut) for cut in shares[:, k])
        assert reference.f1_score(targets[:, k], shares[:, k] > found[k]) == best
    tuned = compute_metrics(BUILTIN["multi-label"], logits, targets, thresholds=found)
    plain = compute_metrics(BUILTIN["multi-label"], logits, targets)
    assert tuned["macro_f1"] > plain["macro_f1"]
    assert tuned["macro_f1"] == reference.f1_score(targets, shares > found, average="macro", zero_division=0.0)
    assert {name: tuned[name] for name in ("loss", "map", "auroc")} == {name: plain[name] for name in ("loss", "map", "auroc")}


def test_missing_labels_are_left_out_of_thresholds_and_of_each_label() -> None:
    net, (pixels, labels) = labelled(), many(12)
    truth = np.array([[float(name in some) for name in NAMES] for some in labels])
    logits = np.random.default_rng(0).normal(size=truth.shape)
    with_gaps = np.where(np.arange(12)[:, None] < 4, np.nan, truth)
    assert best_thresholds(logits, with_gaps) == best_thresholds(logits[4:], truth[4:])
    found = net.evaluate((pixels, [row.tolist() for row in with_gaps]))
    rest = net.evaluate((pixels[4:], truth[4:].tolist()))
    assert str(found.per_class()) == str(rest.per_class())  # NaN where nothing was predicted
    assert len(found.mistakes()["label"]) == len(rest.mistakes()["label"])
    assert found.predictions()["truth"][:4] == [""] * 4


def test_a_run_chooses_thresholds_and_the_saved_model_predicts_by_them(tmp_path: Path) -> None:
    net, valid = labelled(), many(16, seed=1)
    run = net.fit(many(), valid, out=tmp_path / "run", **OPTIONS)
    again = zoo_load(net, tmp_path)
    assert net.thresholds is not None
    assert again == net.thresholds
    logits = np.log(shares := net.predict_proba(valid[0]).astype(np.float64)) - np.log1p(-shares)
    truth = np.array([[name in some for name in NAMES] for some in valid[1]])
    assert net.thresholds == pytest.approx(best_thresholds(logits, truth), abs=1e-5)
    assert net.predict(valid[0]) == [tuple(name for name, on in zip(NAMES, row > net.thresholds, strict=True) if on) for row in shares]
    half, own = net.evaluate(valid, thresholds=0.5), net.evaluate(valid, intervals=0.9)
    assert own["macro_f1"] >= half["macro_f1"] == pytest.approx(run.metrics["macro_f1"])
    assert own["macro_f1_low"] <= own["macro_f1"] <= own["macro_f1_high"]
    per_class = own.per_class()
    assert np.mean([row["f1"] for row in per_class.values()]) == pytest.approx(own["macro_f1"])
    assert tuple(row["threshold"] for row in per_class.values()) == net.thresholds
    wrong = own.mistakes()
    assert len(wrong["label"]) == (truth != (shares > net.thresholds)).sum()
    assert all(one != other for one, other in zip(wrong["truth"], wrong["prediction"], strict=True))
    net.fit(many(), False, out=tmp_path / "without", **OPTIONS)
    assert net.thresholds is None


def zoo_load(net: TaskModel, folder: Path) -> tuple[float, ...]:
    """Return the thresholds in the saved configuration, after a model was opened with it."""
    from zoo.saved.config import read_config

    return tuple(read_config(folder / "run").zoo.thresholds)


def test_thresholds_can_be_given_and_are_checked() -> None:
    net, pixels = labelled(), images(4)[0]
    assert net.predict(pixels, thresholds=1e-6) == [NAMES] * 4
    assert net.predict(pixels, thresholds={"red": 1e-6, "blue": 0.999999, "green": 0.999999}) == [("red",)] * 4
    assert net.predict(pixels, thresholds=[0.5] * 3) == net.predict(pixels)
    for wrong, fact in (({"rde": 0.5}, "did you mean 'red'"), (1.5, "between 0 and 1"), ([0.5], "1 values for 3 labels"), ("x", "'x'")):
        with pytest.raises(OptionError, match=fact):
            net.predict(pixels, thresholds=wrong)
    with pytest.raises(OptionError, match="single-label"):
        model(labels=NAMES).predict(pixels, thresholds=0.5)


def test_a_saved_model_keeps_its_thresholds_and_a_wrong_number_of_them_is_refused(tmp_path: Path) -> None:
    net = zoo.get("zoo/glyphnet").adapt(3, task="multi-label", labels=NAMES)
    net.thresholds = (0.25, 0.5, 0.75)
    net.save(tmp_path / "saved")
    assert zoo.load(tmp_path / "saved").thresholds == net.thresholds
    path = tmp_path / "saved" / "config.json"
    path.write_text(path.read_text().replace("0.75\n", "0.75, 0.5\n"))
    with pytest.raises(SavedModelError, match="thresholds has 4 values"):
        zoo.load(tmp_path / "saved")
