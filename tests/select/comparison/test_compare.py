"""Comparison of runs and cross-validations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

import zoo.select
from tests.engine.tiny import images, model
from zoo.cli.app import main
from zoo.errors import OptionError, SavedModelError
from zoo.select.comparison.paired import Predictions, by_samples, judged, mcnemar


def noisy(seed: int = 3) -> Any:
    pixels, names = images(40)
    return np.random.default_rng(seed).integers(0, 255, pixels.shape).astype(np.uint8), names


def validated(out: Path, data: Any, **options: Any) -> Path:
    settings = {"recipe": "linear-probe", "folds": 4, "batch_size": 8, "quiet": True} | options
    return Path(zoo.select.cross_validate(model(), data, out=out, **settings).dir)


def test_mcnemar_is_the_exact_binomial_test_of_the_discordant_samples() -> None:
    """12 samples that only the first has right, 4 that only the second has: 2 P(X <= 4), X ~ B(16, 1/2) = 2 * 2517 / 65536."""
    first = np.array([True] * 12 + [False] * 4 + [True] * 30)
    second = np.array([False] * 12 + [True] * 4 + [True] * 30)
    assert mcnemar(first, second) == pytest.approx(2 * 2517 / 65536)
    assert mcnemar(first, second) == pytest.approx(binomtest(4, 16).pvalue)
    assert mcnemar(first, first) == 1.0


def test_cross_validations_on_the_same_folds_are_compared_by_the_corrected_t(tmp_path: Path) -> None:
    good, bad = validated(tmp_path / "good", images(40)), validated(tmp_path / "none", images(40), recipe="full", epochs=1, lr=1e-9)
    found = zoo.select.compare(good, bad)
    (pair,) = found.pairs
    scores = [cv.values("accuracy") for cv in (found.entries[0].folds, found.entries[1].folds) if cv is not None]
    assert pair.test == "corrected resampled t"
    assert pair.difference == pytest.approx(np.mean(scores[0]) - np.mean(scores[1]))
    assert pair.better == 0
    assert "is better than" in found.verdict(pair)
    assert {"recipe", "lr", "epochs"} <= set(found.settings)
    assert "seed" not in found.settings
    assert "batch_size" not in found.settings


def test_equal_models_cannot_be_told_apart_and_other_folds_are_compared_by_their_samples(tmp_path: Path) -> None:
    one, other = validated(tmp_path / "one", noisy()), validated(tmp_path / "other", noisy(), seed=1)
    found = zoo.select.compare(one, other)
    (pair,) = found.pairs
    assert pair.test == "bootstrap, McNemar"
    assert pair.better is None
    assert "40 samples, out of other folds" in pair.note
    assert "cannot be told apart" in found.verdict(pair)
    different = validated(tmp_path / "different", noisy(4))
    (pair,) = zoo.select.compare(one, different).pairs
    assert math.isnan(pair.low)
    assert "different data" in pair.note


@pytest.mark.usefixtures("toys")
def test_runs_are_compared_on_data_that_all_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    for name, options in (("good", {"recipe": "linear-probe"}), ("none", {"recipe": "full", "epochs": 1, "lr": 1e-9})):
        zoo.get("toy/net", weights=False).adapt(3).fit(images(40), images(12, seed=2), out=tmp_path / name, quiet=True, **options)
    runs = [str(tmp_path / name) for name in ("good", "none")]
    for number, (pixels, label) in enumerate(zip(*images(60, seed=5), strict=True)):
        (tmp_path / "test" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "test" / label / f"{number}.png")
    with pytest.raises(SystemExit) as done:
        main(["compare", *runs])
    assert not done.value.code
    assert "give data that all predict" in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        main(["compare", *runs, "--on", str(tmp_path / "test"), "--json"])
    assert not done.value.code
    told = json.loads(capsys.readouterr().out)
    (pair,) = told["pairs"]
    assert pair["better"] == runs[0]
    assert pair["low"] > 0
    assert pair["p"] < 0.05
    evaluated = [zoo.load(run).evaluate(tmp_path / "test", intervals=0.95) for run in runs]
    assert pair["difference"] == pytest.approx(evaluated[0]["accuracy"] - evaluated[1]["accuracy"])
    assert told["scores"][runs[0]]["low"] == pytest.approx(evaluated[0]["accuracy_low"])


def test_the_lowest_value_wins_where_it_is_the_best() -> None:
    source = np.random.default_rng(0)
    targets = source.normal(size=200)
    near, far = (Predictions("regression", (targets + source.normal(scale=scale, size=200))[:, None], targets) for scale in (0.1, 1.0))
    (pair,) = judged([{"first": 0, "second": 1} | by_samples(near, far, "mae")], lower=True)
    assert pair.difference < 0
    assert pair.better == 0
    (pair,) = judged([{"first": 0, "second": 1} | by_samples(near, near, "mae")], lower=True)
    assert pair.better is None


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    one = validated(tmp_path / "one", images(40))
    with pytest.raises(OptionError, match="two runs or more"):
        zoo.select.compare(one)
    with pytest.raises(SavedModelError, match=r"did you mean 'one'"):
        zoo.select.compare(one, tmp_path / "onee")
    with pytest.raises(OptionError, match="did you mean 'accuracy'"):
        zoo.select.compare(one, one, metric="acuracy")
    with pytest.raises(SavedModelError, match="neither a run"):
        zoo.select.compare(one, one / "fold-0" / "..", tmp_path)
