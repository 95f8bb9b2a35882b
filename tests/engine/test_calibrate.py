"""A model that was calibrated: its probabilities, sets and scores, in memory, saved, stale and refused."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

import zoo
from tests.engine.tiny import NAMES, images, model
from tests.toy_text import toy_text_spec
from zoo.errors import DataError, OptionError, SavedModelError
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.tasks.scores import softmax

pytestmark = pytest.mark.usefixtures("toys")
OPTIONS: dict[str, Any] = {"recipe": "full", "epochs": 1, "batch_size": 8, "lr": 1e-2, "quiet": True}


def noisy(count: int = 60, seed: int = 5) -> tuple[Any, list[str]]:
    """Images of which a third have a wrong label, so that a sure model is too sure."""
    pixels, labels = images(count, seed)
    rng = np.random.default_rng(seed)
    return pixels, [str(rng.choice(NAMES)) if rng.random() < 0.4 else label for label in labels]


def confident(task: str = "single-label") -> TaskModel:
    """A model whose logits have a standard deviation of 5."""
    net = model(labels=NAMES, task=task)
    scale = 5 / float(logits_of(net, images(60, 5)[0]).std(0).mean())
    with torch.no_grad():
        net.head.linear.weight.mul_(scale)
    return net


def logits_of(net: TaskModel, pixels: Any) -> Any:
    x = torch.stack([net.transform()(pixel) for pixel in pixels])
    with torch.no_grad():
        return net.eval()(x).double().numpy()


def test_probabilities_are_divided_by_the_temperature_and_predictions_stay() -> None:
    net, data = confident(), noisy()
    before, labels = net.evaluate(data), net.predict(data[0])
    found = net.calibrate(data)
    assert net.calibration is not None
    assert found.samples == 60
    assert found.temperature > 1.5
    assert net.predict_proba(data[0]) == pytest.approx(softmax(logits_of(net, data[0]) / found.temperature), abs=1e-5)
    assert net.predict(data[0]) == labels
    after = net.evaluate(data)
    assert after["accuracy"] == before["accuracy"]
    assert (found.before["loss"], found.after["loss"]) == pytest.approx((before["loss"], after["loss"]), rel=1e-5)
    assert (found.before["ece"], found.after["ece"]) == pytest.approx((after["ece_uncalibrated"], after["ece"]), rel=1e-4)
    assert before["ece"] == pytest.approx(after["ece_uncalibrated"], rel=1e-5)
    assert after["ece"] < before["ece"]
    assert after.predictions()["probability_blue"] == pytest.approx(net.predict_proba(data[0])[:, 0].tolist())


def test_the_features_and_logits_of_one_pass_are_those_of_two() -> None:
    net, (pixels, _) = confident(), images(5)
    x = torch.stack([net.transform()(pixel) for pixel in pixels])
    with torch.no_grad():
        both = net.eval().outputs_and_features(x)
        assert torch.equal(both, torch.cat([net(x), net.embed_batch(x)], 1))


def test_sets_of_a_calibrated_model_hold_the_truth_and_their_coverage_is_measured(caplog: pytest.LogCaptureFixture) -> None:
    net, valid, test = confident(), noisy(90), noisy(90, seed=6)
    net.calibrate(valid)
    sets = net.predict(test[0], sets=0.8)
    labels = net.predict(test[0])
    assert all(members[0] == label for members, label in zip(sets, labels, strict=True))
    found = net.evaluate(test, sets=0.8)
    assert found["coverage"] == np.mean([truth in members for truth, members in zip(test[1], sets, strict=True)])
    assert found["set_size"] == pytest.approx(np.mean([len(members) for members in sets]))
    assert net.evaluate(test)["set_size"] >= found["set_size"]  # those of 0.9
    assert "calibrated on these data" not in caplog.text
    net.evaluate(valid)
    assert "calibrated on these data" in caplog.text


def test_a_regression_has_intervals_and_no_temperature() -> None:
    rng, pixels = np.random.default_rng(0), images(60)[0]
    net = model(2, task="regression")
    targets = (np.asarray([np.ravel(row) for row in net.predict(pixels)]) + rng.normal(size=(60, 2)) * [1, 4]).tolist()
    found = net.calibrate((pixels, targets))
    assert (found.temperature, found.before) == (1.0, {})
    ends = np.asarray(net.predict(pixels, sets=0.9))
    assert ends.shape == (60, 2, 2)
    middle = np.asarray(net.predict(pixels))
    assert ends.mean(2) == pytest.approx(middle)
    inside = (ends[:, :, 0] <= targets) & (ends[:, :, 1] >= targets)
    assert inside.mean(0) == pytest.approx([0.9, 0.9], abs=0.03)
    measured = net.evaluate((pixels, targets))
    assert measured["coverage"] == pytest.approx(inside.mean(), abs=0.01)
    assert measured["interval_width"] == pytest.approx((ends[:, :, 1] - ends[:, :, 0]).mean(), rel=1e-5)
    single = model(1, task="regression")
    single.calibrate((pixels, rng.normal(size=60).tolist()))
    assert all(low < value < high for (low, high), value in zip(single.predict(pixels, sets=0.5), single.predict(pixels), strict=True))


def test_thresholds_of_labels_move_with_the_temperature_so_that_predictions_stay() -> None:
    rng, pixels = np.random.default_rng(0), images(60)[0]
    labels = [[name for name in NAMES if rng.random() < 0.4] for _ in range(60)]
    net = confident(task="multi-label")
    net.thresholds = (0.3, 0.5, 0.8)
    before = net.predict(pixels)
    for _ in range(2):  # a second calibration starts from the first
        net.calibrate((pixels, labels))
        assert net.predict(pixels) == before
    assert net.thresholds[1] == pytest.approx(0.5)
    assert 0.3 < net.thresholds[0] < 0.5 < net.thresholds[2] < 0.8
    found = net.evaluate((pixels, labels))
    assert found["coverage"] >= 0.9
    assert found["macro_f1"] == pytest.approx(
        reference.f1_score([[n in row for n in NAMES] for row in labels], [[n in row for n in NAMES] for row in before], average="macro")
    )


def test_a_saved_model_keeps_its_calibration_to_the_bit(tmp_path: Path) -> None:
    net, data = confident(), noisy()
    net.calibrate(data)
    again = zoo.load(net.save(tmp_path / "saved"))
    assert np.array_equal(again.predict_proba(data[0]), net.predict_proba(data[0]))
    assert again.predict(data[0], sets=0.9) == net.predict(data[0], sets=0.9)
    assert np.array_equal(again.ood_score(data[0]), net.ood_score(data[0]))
    net.calibration = None
    net.save(tmp_path / "saved", overwrite=True)
    assert not (tmp_path / "saved" / "calibration.safetensors").exists()
    assert zoo.load(tmp_path / "saved").calibration is None


@pytest.mark.parametrize("held_out", [False, True])
def test_data_in_memory_that_a_model_was_trained_on_are_told_when_it_is_calibrated_on_them(
    held_out: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels, names = images(30)
    tensors = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), torch.tensor([NAMES.index(name) for name in names])
    for number, data in enumerate(((pixels, names), torch.utils.data.TensorDataset(*tensors))):
        net = model(3, labels=NAMES)
        net.fit(data, None if held_out else False, recipe="linear-probe", batch_size=8, quiet=True, out=tmp_path / str(number))
        caplog.clear()
        net.calibrate((np.stack(pixels)[:, ::-1].copy(), names))
        assert "was trained on these data" not in caplog.text
        net.calibrate(data)
        assert "was trained on these data" in caplog.text


def test_a_model_is_calibrated_on_one_split_of_several(caplog: pytest.LogCaptureFixture) -> None:
    pixels, names = images(30)
    table = zoo.open_data((pixels, names), classes=NAMES)
    net = model(3, labels=NAMES)
    net.calibrate(replace(table, splits=("train",) * 20 + ("val",) * 10))
    assert "30 samples calibrate the model, those of the training split too" in caplog.text


def test_all_that_an_evaluation_cannot_do_is_told_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        model(2, labels=("no", "yes")).evaluate(
            images(12), specificity=2, intervals=3, sets=5, positive="y", batch_size=0, metrics=["mc"], thresholds=0.5
        )
    for part in ("specificity is 2", "intervals is 3", "positive is 'y'", "batch_size is 0", "'mc'", "thresholds are for labels"):
        assert part in str(caught.value)
    assert str(caught.value).count(":\n") == 1, "one headline"


def test_a_model_that_was_saved_before_calibrations_existed_opens(tmp_path: Path) -> None:
    folder = model(labels=NAMES).save(tmp_path / "saved")
    config = json.loads((folder / "config.json").read_text())
    for name in ("calibration", "trained_on"):
        del config["zoo"][name]
    (folder / "config.json").write_text(json.dumps(config))
    opened = zoo.load(folder)
    assert (opened.calibration, opened.trained_on) == (None, ())


def test_a_calibration_whose_file_is_damaged_or_missing_is_refused_by_name(tmp_path: Path) -> None:
    net = confident()
    net.calibrate(noisy())
    folder = net.save(tmp_path / "saved")
    shutil.copytree(folder, tmp_path / "other")
    (folder / "calibration.safetensors").unlink()
    with pytest.raises(SavedModelError, match=r"has no calibration\.safetensors"):
        zoo.load(folder)
    path = tmp_path / "other" / "calibration.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(SavedModelError, match=r"calibration.safetensors.*sha256 differs"):
        zoo.load(tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["zoo"]["calibration"]["temperature"] = -1
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(SavedModelError, match="temperature"):
        zoo.load(tmp_path / "other")


def test_training_drops_a_calibration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net, data = confident(), noisy()
    net.calibrate(data)
    with caplog.at_level(logging.INFO, "zoo"):
        net.fit(images(), images(12, seed=1), out=tmp_path / "run", **OPTIONS)
    assert "calibration of the model is dropped" in caplog.text
    assert net.calibration is None
    assert zoo.load(tmp_path / "run").calibration is None


def test_a_calibration_of_other_values_of_the_head_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net, data = confident(), noisy()
    net.calibrate(data)
    with torch.no_grad():
        net.head.linear.bias.add_(0.5)
    assert net.predict_proba(data[0]) == pytest.approx(softmax(logits_of(net, data[0])), abs=1e-5)
    assert "other values of its head" in caplog.text
    with pytest.raises(OptionError, match="need a calibration"):
        net.predict(data[0], sets=0.9)
    net.save(tmp_path / "saved")
    assert zoo.load(tmp_path / "saved").calibration is None


def test_what_needs_a_calibration_says_how_to_get_one_and_how_large() -> None:
    net, (pixels, labels) = model(labels=NAMES), images(12)
    for call in (lambda: net.predict(pixels, sets=0.9), lambda: net.evaluate((pixels, labels), sets=0.9), lambda: net.ood_score(pixels)):
        with pytest.raises(OptionError, match=r"model.calibrate\(data\), or: zoo calibrate MODEL DATA"):
            call()
    net.calibrate((pixels, labels))
    with pytest.raises(OptionError, match=r"sets of 0.95 need 19 samples.*there were 12"):
        net.predict(pixels, sets=0.95)
    with pytest.raises(OptionError, match=r"outliers need 20 samples.*there were 12"):
        net.ood_score(pixels)
    assert "coverage" in net.evaluate((pixels, labels))
    net.calibrate((pixels[:6], labels[:6]))
    assert "coverage" not in net.evaluate((pixels, labels))  # no sets of 0.9 from 6 samples
    with pytest.raises(OptionError, match="did you mean 'split'"):
        net.calibrate((pixels, labels), splt="valid")


def test_calibrating_on_the_training_data_and_on_few_samples_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net, train, valid = model(labels=NAMES), images(24), images(24, seed=1)
    net.fit(train, valid, out=tmp_path / "run", **OPTIONS)
    again = zoo.load(tmp_path / "run")
    for trained in (net, again):
        caplog.clear()
        trained.calibrate(valid)
        assert "trained on these data" not in caplog.text
        assert "a temperature from fewer than 100 is uncertain" in caplog.text
        trained.calibrate(train)
        assert "trained on these data" in caplog.text


def test_images_of_another_kind_are_outliers() -> None:
    net, data = model(labels=NAMES), images(60)
    net.calibrate(data)
    usual = net.ood_score(images(30, seed=1)[0])
    noise = np.random.default_rng(0).integers(0, 2, (30, 16, 16, 3), dtype=np.uint8) * 255
    assert (usual > 1).mean() < 0.3
    assert reference.roc_auc_score(np.arange(60) >= 30, np.r_[usual, net.ood_score(noise)]) > 0.95


def test_a_file_of_predictions_has_sets_and_scores(tmp_path: Path) -> None:
    import pandas as pd

    net, data = confident(), noisy()
    net.calibrate(data)
    net.predict_to_file(data[0], tmp_path / "all.csv", sets=0.9, ood=True)
    rows = pd.read_csv(tmp_path / "all.csv")
    assert [tuple(text.split("|")) for text in rows["set"]] == net.predict(data[0], sets=0.9)
    assert rows["ood"].to_numpy() == pytest.approx(net.ood_score(data[0]), rel=1e-5)
    assert rows["prediction"].tolist() == net.predict(data[0])
    with pytest.raises(OptionError, match="for predictions"):
        net.embed_to_file(data[0], tmp_path / "features.npz", ood=True)
    single = model(1, task="regression")
    single.calibrate((data[0], list(range(60))))
    single.predict_to_file(data[0], tmp_path / "numbers.csv", sets=0.5)
    ends = pd.read_csv(tmp_path / "numbers.csv")[["low", "high"]].to_numpy()
    assert ends == pytest.approx(np.asarray(single.predict(data[0], sets=0.5)))


def test_an_input_that_cannot_be_read_has_no_set_and_no_score(tmp_path: Path) -> None:
    import PIL.Image

    net, data = confident(), noisy()
    net.calibrate(data)
    PIL.Image.fromarray(data[0][0]).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    assert net.predict(paths, sets=0.9, on_error="skip") == [*net.predict(data[0][:1], sets=0.9), None]
    assert np.isnan(net.ood_score(paths, on_error="skip")).tolist() == [False, True]


def test_words_are_not_calibrated() -> None:
    net = Backbone(toy_text_spec(), weights=False).adapt(2, task="token-classification")
    with pytest.raises(OptionError, match="one answer per sample; the task is token-classification"):
        net.calibrate([(["a"], ["O"])])


def test_metrics_by_name_are_measured_with_intervals_and_may_choose_the_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net, data = confident(), noisy()
    found = net.evaluate(data, metrics=["mcc", "kappa", "top_2"], intervals=0.9, sensitivity=0.9, specificity=0.9)
    assert found["mcc"] == pytest.approx(reference.matthews_corrcoef(data[1], net.predict(data[0])))
    assert found["mcc_low"] <= found["mcc"] <= found["mcc_high"]
    assert found["specificity_at_sensitivity_low"] <= found["specificity_at_sensitivity"] <= found["specificity_at_sensitivity_high"]
    assert "ece_low" not in found
    assert {"average_precision", "aurc"} <= set(net.evaluate(data, metrics="all"))
    with pytest.raises(OptionError, match="did you mean 'kappa'"):
        net.evaluate(data, metrics=["kapa"])
    assert net.evaluate((data[0][:3], ["blue"] * 3), metrics=["mcc"])["mcc"] == 0
    run = net.fit(images(), images(12, seed=1), out=tmp_path / "run", metrics=["mcc", "brier"], monitor="brier", **OPTIONS)
    assert {"mcc", "brier"} <= set(run.metrics)
    assert run.monitor == "brier"
    with pytest.raises(OptionError, match="did you mean 'mcc'"):
        net.fit(images(), images(12, seed=1), out=tmp_path / "other", metrics=["mc"], **OPTIONS)


def test_a_metric_that_was_asked_for_and_has_no_value_is_an_error_with_the_remedy() -> None:
    net, blue = model(labels=NAMES), (images(6)[0], ["blue"] * 6)
    wanted = {"metrics": ["mcc", "auroc"], "specificity": 0.9}
    told = r"auroc, sensitivity_at_specificity cannot be measured on these data, which have 'blue' \(6\); take data"
    with pytest.raises(DataError, match=told):
        net.evaluate(blue, **wanted)
    assert "auroc" not in net.evaluate(blue, metrics="all")  # nobody asked for it by its name
    assert "auroc" in net.evaluate(images(12), metrics="auroc")


def test_specificity_at_a_sensitivity_is_about_the_positive_class() -> None:
    rng = np.random.default_rng(0)
    net, pixels = model(2, labels=("no", "yes")), images(80)[0]
    labels = ["yes" if rng.random() < 0.4 else "no" for _ in range(80)]
    shares = net.predict_proba(pixels).astype(np.float64)
    for column, positive in enumerate(("no", "yes")):
        fpr, tpr, _ = reference.roc_curve(np.array(labels) == positive, shares[:, column], drop_intermediate=False)
        found = net.evaluate((pixels, labels), sensitivity=0.8, positive=positive, metrics=["average_precision"])
        assert found["specificity_at_sensitivity"] == pytest.approx((1 - fpr)[tpr >= 0.8].max())
        expected = reference.average_precision_score(np.array(labels) == positive, shares[:, column])
        assert found["average_precision"] == pytest.approx(expected)
    with pytest.raises(OptionError, match="sensitivity is 2"):
        net.evaluate((pixels, labels), sensitivity=2)
    with pytest.raises(OptionError, match="sensitivity is for classes"):
        model(1, task="regression").evaluate((pixels, [1.0] * 80), sensitivity=0.5)


def test_outputs_that_are_not_finite_are_told_and_leave_metrics_out(caplog: pytest.LogCaptureFixture) -> None:
    net, data = model(labels=NAMES), images(12)
    with torch.no_grad():
        net.head.linear.bias[0] = float("nan")
    found = net.evaluate(data, metrics="all")
    assert "outputs for 12 samples of 12 are not finite" in caplog.text
    assert not {"ece", "brier", "mcc", "auroc"} & set(found)


def test_baselines_are_those_of_the_data_that_are_measured() -> None:
    net, data = model(labels=NAMES), images(12)
    found = net.evaluate((data[0], ["blue"] * 6 + ["red"] * 6), metrics=["mcc"])
    free = found.baselines()
    assert free["prior"]["accuracy"] == found["majority"] == 0.5
    assert free["prior"]["mcc"] == 0
    assert set(free["random"]) <= set(found)
    curve = found.selective()
    assert curve["risk"][-1] == pytest.approx(1 - found["accuracy"])
    with pytest.raises(OptionError, match="selective is for one class"):
        model(1, task="regression").evaluate((data[0], [1.0] * 12)).selective()
