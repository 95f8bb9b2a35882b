"""Numbers and names as people bring them: tiny targets, weights as an array, metrics by the names of other libraries."""

import logging

import numpy as np
import pytest

import zoo
from zoo.cli.arguments.settings import thresholds
from zoo.cli.output.stdout import metrics_line
from zoo.engine.options.model_selection import resolve_monitor
from zoo.engine.options.option_types import weights_by_class
from zoo.tasks.find import find_task


def test_errors_of_tiny_targets_are_told_in_digits_that_count():
    assert metrics_line({"mae": 1.2794034e-9, "r2": 0.65967}) == "mae 1.279e-09, r2 0.6597"
    assert metrics_line({"mae": 1.2794034e-9, "mae_low": 1e-9, "mae_high": 2.3456e-9}) == "mae 1.28e-09 [1e-09, 2.35e-09]"
    assert metrics_line({"mae": 1.27940, "rmse": 0.0, "accuracy": 1e-9}) == "mae 1.2794, rmse 0.0000, accuracy 0.0000"


@pytest.mark.parametrize(
    ("given", "told"),
    [("mcc", "metrics=['mcc'] measures it in every epoch"), ("roc_auc", "it is called 'auroc' here"), ("val_loss", "did you mean 'loss'")],
)
def test_a_monitor_that_is_not_measured_says_how_it_would_be(given, told):
    with pytest.raises(zoo.ZooError) as raised:
        resolve_monitor(given, find_task("single-label"))
    assert told in str(raised.value)
    assert resolve_monitor("mcc", find_task("single-label"), ["mcc"]) == "mcc"


def test_weights_of_classes_in_an_array_are_refused_in_words():
    with pytest.raises(ValueError, match="must be 'balanced', or a weight above 0 for each class by its name"):
        weights_by_class(np.array([1.0, 2.0]))


def test_a_threshold_is_for_a_label_with_an_equals_sign_too():
    assert thresholds("c=d=0.4,cat=0.3") == {"c=d": 0.4, "cat": 0.3}


def test_calibrating_numbers_tells_of_no_temperature(tmp_path, caplog):
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
    model = zoo.get("zoo/glyphnet").adapt(num_classes=1, task="regression")
    run = model.fit((images, images.mean((1, 2)) * 1e-9), False, recipe="linear-probe", image_size=32, out=tmp_path / "run", quiet=True)
    assert run.dir.exists()
    with caplog.at_level(logging.WARNING, "zoo"):
        model.calibrate((images[:20], images[:20].mean((1, 2)) * 1e-9), quiet=True)
    assert "temperature" not in caplog.text


@pytest.mark.parametrize(("low", "high", "remedy"), [(0.0, 255.0, "X = X / 255"), (-3.0, 255.0, "X.min()"), (0.0, 4000.0, "X.min()")])
def test_float_pixels_of_eight_bits_are_to_be_divided_by_255(low, high, remedy):
    pixels = np.full((8, 8), low)
    pixels[0, 0] = high
    with pytest.raises(zoo.ZooError) as raised:
        zoo.get("zoo/glyphnet").adapt(num_classes=2).predict([pixels], quiet=True)
    assert remedy in str(raised.value)
