from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from sklearn import metrics as reference

import zoo
from tests.engine.tiny import NAMES, images, model
from zoo.engine.inference.evaluate import evaluate
from zoo.engine.inference.metrics import compute_metrics
from zoo.engine.inference.predict import predict, predict_proba
from zoo.errors import DataError, OptionError, TrainingError
from zoo.tasks.find import BUILTIN
from zoo.tasks.scores import sigmoid, softmax


def test_single_label_metrics_are_scikit_learns() -> None:
    source = np.random.default_rng(0)
    logits, targets = source.normal(size=(50, 4)), source.integers(0, 4, 50)
    got, predicted = compute_metrics(BUILTIN["single-label"], logits, targets), logits.argmax(1)
    assert got == pytest.approx(
        {
            "loss": reference.log_loss(targets, softmax(logits)),
            "accuracy": reference.accuracy_score(targets, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(targets, predicted),
            "macro_f1": reference.f1_score(targets, predicted, average="macro"),
            "auroc": reference.roc_auc_score(targets, softmax(logits), multi_class="ovr"),
            "majority": np.bincount(targets).max() / 50,
        }
    )


def test_binary_auroc_ranks_by_the_second_class() -> None:
    logits, targets = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.1]]), np.array([1, 0, 1])
    assert compute_metrics(BUILTIN["single-label"], logits, targets)["auroc"] == reference.roc_auc_score(targets, softmax(logits)[:, 1])


def test_what_the_data_leave_undefined_is_left_out() -> None:
    assert "auroc" not in compute_metrics(BUILTIN["single-label"], np.eye(3), np.zeros(3, dtype=int))
    assert "map" not in compute_metrics(BUILTIN["multi-label"], np.zeros((2, 2)), np.zeros((2, 2)))
    assert "r2" not in compute_metrics(BUILTIN["regression"], np.zeros((1, 1)), np.zeros(1))


def test_multi_label_metrics_are_scikit_learns() -> None:
    source = np.random.default_rng(0)
    logits, targets = source.normal(size=(50, 4)), source.integers(0, 2, (50, 4))
    assert compute_metrics(BUILTIN["multi-label"], logits, targets.astype(np.float32)) == pytest.approx(
        {
            "loss": reference.log_loss(targets.ravel(), sigmoid(logits).ravel()),
            "map": reference.average_precision_score(targets, logits),
            "macro_f1": reference.f1_score(targets, logits > 0, average="macro"),
            "micro_f1": reference.f1_score(targets, logits > 0, average="micro"),
            "auroc": reference.roc_auc_score(targets, logits),
        }
    )


def test_regression_metrics_are_scikit_learns() -> None:
    source = np.random.default_rng(0)
    outputs, targets = source.normal(size=(20, 1)), source.normal(size=20)
    assert compute_metrics(BUILTIN["regression"], outputs, targets) == pytest.approx(
        {
            "mae": reference.mean_absolute_error(targets, outputs[:, 0]),
            "rmse": reference.root_mean_squared_error(targets, outputs[:, 0]),
            "r2": reference.r2_score(targets, outputs[:, 0]),
        }
    )


def test_probabilities_do_not_overflow() -> None:
    assert softmax(np.array([[1000.0, 0.0]])).tolist() == [[1.0, 0.0]]
    assert sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]


def test_predictions_keep_the_order_whatever_the_batch_and_leave_the_mode_alone() -> None:
    net, pixels = model(labels=NAMES).train(), images(11)[0]
    one, many = predict_proba(net, pixels, batch_size=1), predict_proba(net, pixels, batch_size=64)
    assert one.shape == (11, 3)
    assert np.allclose(one, many, atol=1e-6)
    assert np.allclose(one.sum(1), 1, atol=1e-6)
    assert net.training
    assert predict(net, pixels) == [NAMES[k] for k in many.argmax(1)]


def test_embeddings_are_the_pooled_features_in_eval_mode() -> None:
    net = model()
    x = torch.stack([torch.randn(3, 16, 16) for _ in range(3)])  # ready-made, as values outside [0, 1] are
    with torch.no_grad():
        expected = net.eval().embed_batch(x).numpy()
    assert np.allclose(net.train().embed(list(x)), expected, atol=1e-6)


def test_any_way_to_give_images_gives_the_same_answer(tmp_path: Path) -> None:
    net, pixels = model(labels=NAMES), images(3)[0]
    pictures = [PIL.Image.fromarray(image) for image in pixels]
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    expected = predict_proba(net, pixels)
    sources: list[Any] = [pictures, paths, [str(path) for path in paths], tmp_path, list(pixels)]
    for source in sources:
        assert np.array_equal(predict_proba(net, source), expected)
    for single in (paths[1], str(paths[1]), pictures[1], pixels[1]):
        assert np.allclose(predict_proba(net, single), expected[1:2], atol=1e-6)


def test_without_labels_a_prediction_is_an_index() -> None:
    assert set(predict(model(), images(6)[0])) <= {0, 1, 2}


def test_labels_outside_the_models_are_refused_by_name() -> None:
    pixels, _ = images(3)
    with pytest.raises(DataError, match="purple"):
        evaluate(model(labels=NAMES), (pixels, ["blue", "green", "purple"]))


def test_evaluation_needs_labels() -> None:
    with pytest.raises(DataError, match="label"):
        evaluate(model(labels=NAMES), list(images(3)[0]))


def test_a_part_of_the_classes_is_enough_to_evaluate() -> None:
    pixels, labels = images(9)
    rows = [i for i, label in enumerate(labels) if label != "red"]
    got = evaluate(model(labels=NAMES), (pixels[rows], [labels[i] for i in rows]))
    assert got["majority"] == 0.5


def test_a_regression_has_no_probabilities() -> None:
    net = model(1, task="regression")
    assert all(isinstance(value, float) for value in predict(net, images(3)[0]))
    with pytest.raises(OptionError, match="predict"):
        predict_proba(net, images(3)[0])
    assert all(len(row) == 2 for row in predict(model(2, task="regression"), images(3)[0]))
    with pytest.raises(DataError, match="2 target values"):
        evaluate(net, (images(3)[0], [[1.0, 2.0]] * 3))


def test_half_precision_is_asked_for_by_name_and_numbers_stay_whole() -> None:
    pixels = images(12)[0]
    for task, exact in (("regression", True), ("single-label", False)):
        net = model(2, task=task)
        with torch.no_grad():  # numbers of which bf16 keeps three digits
            net.head.linear.weight.mul_(100.0)
            net.head.linear.bias.fill_(1000.0)
        x = torch.randn(4, 3, 16, 16)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            features = net.backbone(x)
            logits = net.logits(features, x)
        expected = net.head(features.float()).detach()
        assert torch.equal(logits.float(), expected) is exact
    assert np.array_equal(net.predict_proba(pixels, precision="fp32"), net.predict_proba(pixels))
    assert not np.array_equal(net.predict_proba(pixels, precision="bf16"), net.predict_proba(pixels))
    with pytest.raises(OptionError, match="bf16"):
        net.evaluate((pixels, ["a", "b"] * 6), precision="half")


def test_a_batch_size_below_one_and_an_unknown_device_are_refused() -> None:
    with pytest.raises(OptionError, match="batch_size is 0"):
        predict(model(), images(3)[0], batch_size=0)
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="'cuda' is not available"):
            predict(model(), images(3)[0], device="cuda")


def test_a_pass_that_memory_is_too_small_for_goes_on_in_smaller_batches(caplog: pytest.LogCaptureFixture) -> None:
    net, pixels = model(), images(9)[0]
    expected = net.predict_proba(pixels, batch_size=2)

    def narrow(_module: Any, args: Any) -> None:
        if len(args[0]) > 2:
            raise MemoryError

    handle = net.backbone.register_forward_pre_hook(narrow)
    assert np.allclose(net.predict_proba(pixels, batch_size=8), expected, atol=1e-6)
    assert "batches of 2 samples" in caplog.text
    handle.remove()
    net.backbone.register_forward_pre_hook(lambda _module, _args: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(TrainingError, match="batches of 1 sample; make the inputs smaller"):
        net.predict_proba(pixels, batch_size=8)


def test_a_table_that_is_made_at_first_use_can_still_be_trained_behind(tmp_path: Path) -> None:
    net = model()
    made: dict[str, torch.Tensor] = {}

    def scaled(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        made.setdefault("table", torch.ones(output.shape[1], 1, 1))
        return output * made["table"]

    net.backbone.conv1.register_forward_hook(scaled)
    net.evaluate(images())
    net.fit(images(), out=tmp_path, quiet=True, recipe="full", epochs=1, batch_size=8)


def test_a_model_comes_back_in_the_layout_and_the_modes_it_had() -> None:
    net = model().to(memory_format=torch.channels_last)
    net.train()
    net.backbone.bn1.eval()
    net.evaluate(images())
    assert net.backbone.blocks[0].conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert net.training
    assert not net.backbone.bn1.training


def test_embeddings_of_another_size_are_those_of_a_model_of_that_size() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    larger = zoo.get("zoo/glyphnet").adapt(2)
    larger.inputs = dataclasses.replace(larger.inputs, size=(48, 48))  # type: ignore[arg-type, type-var]  # an image
    found = zoo.get("zoo/glyphnet").adapt(2).embed(pixels, image_size=48)
    assert np.array_equal(found, larger.embed(pixels))
    assert not np.array_equal(found, zoo.get("zoo/glyphnet").adapt(2).embed(pixels))
