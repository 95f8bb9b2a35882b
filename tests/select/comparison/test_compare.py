"""Comparison of runs and cross-validations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import matthews_corrcoef  # type: ignore[import-untyped]  # ships no types

import zoo.select
from tests.engine.tiny import images, model
from zoo.cli.app import main
from zoo.data.table import Table
from zoo.errors import OptionError, SavedModelError
from zoo.saved.config import read_config
from zoo.select.comparison.compare import Comparison
from zoo.select.comparison.paired import Pair, Predictions, by_samples, judged, mcnemar
from zoo.select.crossval.held_out import read_outputs


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


@pytest.mark.usefixtures("toys")
def test_cross_validations_on_the_same_folds_are_compared_by_the_corrected_t(tmp_path: Path) -> None:
    good, bad = validated(tmp_path / "good", images(40)), validated(tmp_path / "none", images(40), recipe="full", epochs=1, lr=1e-9)
    found = zoo.select.compare(good, bad)
    (pair,) = found.pairs
    scores = [cv.values("accuracy") for cv in (found.entries[0].folds, found.entries[1].folds) if cv is not None]
    assert pair.test == "corrected resampled t"
    assert pair.difference == pytest.approx(np.mean(scores[0]) - np.mean(scores[1]))
    assert pair.better == 0
    assert "is better than" in found.verdict(pair)
    asked = zoo.select.compare(good, bad, metric="mcc")  # the folds did not measure it, their predictions can
    assert (asked.metric, asked.pairs[0].better, asked.pairs[0].test) == ("mcc", 0, "bootstrap")
    targets = [read_outputs(good / f"fold-{number}") for number in range(4)]
    joined = [np.concatenate([getattr(part, name) for part in targets if part is not None]) for name in ("targets", "outputs")]
    other = [read_outputs(bad / f"fold-{number}") for number in range(4)]
    theirs = [np.concatenate([getattr(part, name) for part in other if part is not None]) for name in ("targets", "outputs")]
    values = [matthews_corrcoef(targets, outputs.argmax(1)) for targets, outputs in (joined, theirs)]
    assert asked.pairs[0].difference == pytest.approx(values[0] - values[1])
    lowest = zoo.select.compare(good, bad, metric="brier").pairs[0]
    assert (lowest.better, lowest.difference < 0) == (0, True)
    with pytest.raises(OptionError, match=r"no metric 'mc' \(did you mean 'mcc'\?\)"):
        zoo.select.compare(good, bad, metric="mc")
    with pytest.raises(SavedModelError, match=r"'auroc' has no value on these data; take other data, or another metric \(--metric\)"):
        zoo.select.compare(good, bad, on=(images(6)[0], ["blue"] * 6), metric="auroc")
    assert {"recipe", "lr", "epochs"} <= set(found.settings)
    assert "seed" not in found.settings
    assert "batch_size" not in found.settings
    assert not {"judge_augment", "mix_few"} & set(found.settings), "fields that are no options"


def test_two_folds_alone_are_compared_by_their_samples(tmp_path: Path) -> None:
    one, other = (validated(tmp_path / str(width), noisy(), folds=2, image_size=width) for width in (8, 12))
    (pair,) = zoo.select.compare(one, other).pairs
    assert (pair.test, pair.note) == ("bootstrap, McNemar", "40 samples, out of the same folds")
    assert -1 <= pair.low <= pair.difference <= pair.high <= 1


def test_equal_models_cannot_be_told_apart_and_other_folds_are_compared_by_their_samples(tmp_path: Path) -> None:
    one, other = validated(tmp_path / "one", noisy()), validated(tmp_path / "other", noisy(), seed=1)
    found = zoo.select.compare(one, other)
    (pair,) = found.pairs
    assert pair.test == "bootstrap, McNemar"
    assert pair.better is None
    assert "40 samples, out of other folds" in pair.note
    assert "cannot be told apart" in found.verdict(pair)
    repeated = validated(tmp_path / "repeated", noisy(), folds=2, repeats=2)
    assert zoo.select.compare(one, repeated).pairs[0].note.endswith("out of other folds of the first repeat")
    different = validated(tmp_path / "different", noisy(4))
    (pair,) = zoo.select.compare(one, different).pairs
    assert math.isnan(pair.low)
    assert "different data" in pair.note


def test_other_folds_are_compared_by_group_with_the_thresholds_of_each_fold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels, labels = noisy()[0], rng.integers(0, 2, (40, 2)).astype(np.float32)
    table = Table(list(pixels), labels, ("a", "b"), groups=tuple(f"p{row // 2}" for row in range(40)))
    settings: dict[str, Any] = {"recipe": "linear-probe", "folds": 3, "batch_size": 8, "inner_valid": True, "quiet": True}
    runs = []
    for seed in (0, 1):
        found = zoo.select.cross_validate(model(2, task="multi-label"), table, seed=seed, out=tmp_path / str(seed), **settings)
        runs.append(found)
    compared = zoo.select.compare(*(run.dir for run in runs), metric="macro_f1")
    (pair,) = compared.pairs
    assert pair.note == "20 groups, out of other folds"
    chosen = {tuple(read_config(run.dir / f"fold-{fold}").zoo.thresholds) for run in runs for fold in range(3)}
    assert len(chosen) > 1, "the folds have thresholds of their own"
    assert pair.difference == pytest.approx(runs[0].metrics["macro_f1"] - runs[1].metrics["macro_f1"])
    (tmp_path / "1" / "fold-2" / "held_out.npz").unlink()
    with pytest.raises(SavedModelError, match=r"fold-2.*predictions are missing"):
        zoo.select.compare(*(run.dir for run in runs))


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ('{"finished": {"history": [{"epoch": 1}], "kept": 2, "monitor": "accuracy"}, "data": {}}', "cannot be read"),
        ('{"finished": [], "data": {}}', "TypeError"),
        ('{"finished": {}, "data": {"train": 1}}', "KeyError"),
        ("[1, 2]", "not finished"),
        ("1", "TypeError"),
    ],
)
def test_odd_records_are_told_with_their_file(tmp_path: Path, record: str, told: str) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "run.json").write_text(record)
    with pytest.raises(SavedModelError, match=told):
        zoo.select.compare(tmp_path / "odd", tmp_path / "other")
    cv = {"cv": {}, "config": {}, "model": {}, "data": {}, "result": {"folds": [], "finished": True, "metric": "x", "out_of_fold": {}}}
    (tmp_path / "odd" / "cv.json").write_text(json.dumps(cv))
    with pytest.raises(SavedModelError, match=r"cv\.json.*cannot be read"):
        zoo.select.compare(tmp_path / "odd", tmp_path / "other")


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
    assert "give data that all predict: --test DATA" in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        main(["compare", *runs, "--test", str(tmp_path / "test"), "--json"])
    assert not done.value.code
    told = json.loads(capsys.readouterr().out)
    (pair,) = told["pairs"]
    rows = [f"{path.name},{path.parent.name},p{number // 2}" for number, path in enumerate(sorted((tmp_path / "test").rglob("*.png")))]
    (tmp_path / "test.csv").write_text("\n".join(["scan,kind,owner", *rows]))
    table = ["--on", str(tmp_path / "test.csv"), "--root", str(tmp_path / "test")]
    with pytest.raises(SystemExit) as done:
        main(["compare", *runs, *table, "--columns", "file_name=scan,label=kind,group=owner", "--json"])
    assert not done.value.code
    (grouped,) = json.loads(capsys.readouterr().out)["pairs"]
    assert grouped["difference"] == pytest.approx(pair["difference"])
    assert grouped["note"] == "30 groups"
    with pytest.raises(SystemExit) as done:
        main(["compare", *runs, "--columns", "label=kind"])
    assert done.value.code == 2
    assert "columns: options of the evaluation on data; give --test" in capsys.readouterr().err
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
    with pytest.raises(SavedModelError, match=r"did you mean '.*one'"):
        zoo.select.compare(one, tmp_path / "onee")
    with pytest.raises(OptionError, match="did you mean 'accuracy'"):
        zoo.select.compare(one, validated(tmp_path / "other", images(40)), metric="acuracy")
    with pytest.raises(OptionError, match="given more than once"):
        zoo.select.compare(one, one.parent / "." / "other" / ".." / "one")
    with pytest.raises(SavedModelError, match="neither a run"):
        zoo.select.compare(one, tmp_path)


def test_a_difference_in_the_unit_of_small_targets_keeps_its_digits() -> None:
    entries = tuple(SimpleNamespace(name=name) for name in "ab")
    pair = Pair(0, 1, difference=-1.5e-9, low=-2.5e-9, high=0.0, test="bootstrap", note="9 samples")
    said = Comparison(entries, "mae", {}, (), (pair,)).verdict(pair)  # type: ignore[arg-type]  # their names are enough
    assert "difference -1.5e-09 [-2.5e-09, +0.0000]" in said
