"""Thresholds of labels without validation data: from held-out samples of the solved head, after tuning from the training samples."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from tests.engine.tiny import model
from tests.toy_text import ToyTextPlugin
from zoo.registry.registry import Registry, use_registry
from zoo.tasks.thresholds import best_thresholds

NAMES = ("common", "rare")


def images(count: int, seed: int) -> tuple[Any, Any]:
    """Return images of which a label of one sample in ten shows in noise only, as does one of every second."""
    source = np.random.default_rng(seed)
    rows = (source.random((count, 2)) < (0.5, 0.1)).astype(np.float32) if count > 1 else np.ones((1, 2), np.float32)
    shades = 90 + 25 * source.normal(size=(count, 3))
    shades[:, :2] += 35 * rows
    pixels = shades[:, None, None, :] + 20 * source.normal(size=(count, 16, 16, 3))
    return pixels.clip(0, 255).astype(np.uint8), rows


def fit(out: Path, count: int = 400, **options: Any) -> Any:
    net = model(2, task="multi-label", labels=NAMES)
    net.fit(images(count, 0), False, out=out, **({"recipe": "linear-probe", "quiet": True, "augment": "none"} | options))
    return net


@pytest.mark.usefixtures("toys")
def test_a_rare_label_gets_a_threshold_that_finds_it(tmp_path: Path) -> None:
    net, test = fit(tmp_path / "run"), images(1000, 1)
    common, rare = net.thresholds
    assert 0.05 < rare < 0.4 < common + 0.2
    assert net.evaluate(test)["macro_f1"] > net.evaluate(test, thresholds=0.5)["macro_f1"] + 0.03
    assert zoo.load(tmp_path / "run").thresholds == pytest.approx(net.thresholds)


def test_a_resumed_run_has_the_thresholds_of_its_head(tmp_path: Path) -> None:
    options = {"recipe": "lp-ft", "epochs": 2, "batch_size": 64}
    net = fit(tmp_path / "run", **options, keep_checkpoints=True)
    resumed = fit(tmp_path / "run", **options, keep_checkpoints=True, resume=True)
    assert net.thresholds is not None
    assert resumed.thresholds == net.thresholds


def test_after_tuning_the_thresholds_are_those_of_the_tuned_model_on_training_samples(tmp_path: Path) -> None:
    net, (pixels, rows) = fit(tmp_path / "run", 100, recipe="lp-ft", epochs=2, batch_size=32), images(100, 0)
    shares = np.asarray(net.predict_proba(pixels), np.float64)
    assert net.thresholds == pytest.approx(best_thresholds(np.log(shares) - np.log1p(-shares), rows), abs=1e-4)
    alone = fit(tmp_path / "alone", 100)
    assert net.thresholds != pytest.approx(alone.thresholds, abs=1e-3)


@pytest.mark.parametrize(("count", "options"), [(60, {"solve_head": False, "epochs": 2}), (1, {})], ids=["trained", "one sample"])
def test_one_half_is_kept_and_said_where_nothing_is_held_out(
    count: int, options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        net = fit(tmp_path / "run", count, **options)
    assert net.thresholds is None
    assert caplog.text.count("labels are predicted above 0.5: no validation data or solved head could choose thresholds") == 1


@pytest.mark.parametrize("recipe", [{"recipe": "linear-probe"}, {"recipe": "lp-ft", "epochs": 2}], ids=["head", "tuned"])
def test_the_windows_of_a_text_count_as_one(recipe: dict[str, Any], tmp_path: Path) -> None:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    try:
        source = np.random.default_rng(0)
        rows = (source.random((40, 2)) < 0.4).astype(np.float32)
        texts = [" ".join(["sun rain"] * 8 + ["fox"] * int(4 * a) + ["wolf"] * int(4 * b)) for a, b in rows]
        net = zoo.get("toy/text", weights=False).adapt(2, task="multi-label", labels=NAMES)
        options: dict[str, Any] = {"overflow": "windows", "max_length": 8, "quiet": True} | recipe
        net.fit((texts, rows), False, out=tmp_path / "run", **options)
        assert net.thresholds is not None
        assert net.evaluate((texts, rows))["micro_f1"] > 0.5
    finally:
        use_registry()
