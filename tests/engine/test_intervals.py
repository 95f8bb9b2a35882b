"""Weighted metrics equal scikit-learn's on repeated samples; intervals are those of a plain loop, and cover as they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest

from zoo.data.table import Table
from zoo.engine.inference.confidence_intervals import drawn_metric, drawn_metrics, exact_bound, exact_units, intervals, weighted_metrics
from zoo.engine.inference.metrics import compute_metrics, drawn_groups
from zoo.errors import DataError, OptionError
from zoo.tasks.find import BUILTIN
from zoo.trust import class_metrics, label_metrics
from zoo.trust.metric_table import Metric

RNG = np.random.default_rng(0)


def case(task: str, classes: int, n: int = 60) -> tuple[Any, Any]:
    logits = np.round(RNG.normal(size=(n, classes)), 1)  # rounded, so that some are equal
    if task == "single-label":
        return logits, RNG.integers(0, classes, n)
    if task == "multi-label":
        return logits, (RNG.random((n, classes)) < 0.4).astype(np.float32)
    return logits, logits + RNG.normal(size=logits.shape)


def sensitivity_at_specificity(task: str, logits: Any, targets: Any, specificity: float) -> float:
    of_task = label_metrics if task == "multi-label" else class_metrics
    return Metric("", "", of_task.sensitivity_at(specificity)).value(BUILTIN[task], logits, targets)


@pytest.mark.parametrize(
    ("task", "classes"), [("single-label", 2), ("single-label", 4), ("multi-label", 3), ("regression", 1), ("regression", 2)]
)
def test_weights_count_samples_as_scikit_learn_counts_repeated_ones(task: str, classes: int) -> None:
    logits, targets = case(task, classes)
    weights = RNG.integers(0, 4, (5, len(logits))).astype(float)
    found = weighted_metrics(task, logits, targets, weights)
    for draw, row in enumerate(weights.astype(int)):
        reference = compute_metrics(BUILTIN[task], np.repeat(logits, row, 0), np.repeat(targets, row, 0))
        reference.pop("majority", None)
        assert found.keys() == reference.keys()
        assert {name: values[draw] for name, values in found.items()} == pytest.approx(reference, abs=1e-12)


@pytest.mark.parametrize(("task", "classes"), [("single-label", 2), ("single-label", 4), ("multi-label", 3), ("regression", 2)])
def test_one_metric_has_the_draws_that_it_has_beside_the_others(task: str, classes: int) -> None:
    logits, targets = case(task, classes)
    known: dict[tuple[bytes, int, int], Any] = {}
    for name, draws in drawn_metrics(task, logits, targets, draws=20).items():
        assert np.array_equal(drawn_metric(name, task, logits, targets, draws=20), draws, equal_nan=True)
        assert np.array_equal(drawn_metric(name, task, logits, targets, draws=20, known=known), draws, equal_nan=True)
    assert len(known) == 1, "drawn once"
    other = drawn_metric("loss", task, logits, targets, draws=20, seed=1, known=known)
    assert np.array_equal(other, drawn_metric("loss", task, logits, targets, draws=20, seed=1), equal_nan=True)
    assert not len(drawn_metric("none", task, logits, targets, draws=20))


def test_an_undefined_metric_is_not_a_number() -> None:
    logits, targets = case("single-label", 2)
    found = weighted_metrics("single-label", logits, targets, (targets == 1)[None].astype(float))
    assert np.isnan(found["auroc"][0])
    assert np.isfinite(found["accuracy"][0])


def test_sensitivity_at_a_specificity_is_the_best_point_of_the_roc_curve() -> None:
    from sklearn.metrics import roc_curve

    logits, targets = case("single-label", 2, 300)
    logits[:, 1] += targets
    fpr, tpr, _ = roc_curve(targets, logits[:, 1] - logits[:, 0], drop_intermediate=False)
    for specificity in (0.0, 0.5, 0.8, 0.95, 1.0):
        reference = tpr[1 - fpr >= specificity - 1e-12].max()
        assert sensitivity_at_specificity("single-label", logits, targets, specificity) == pytest.approx(reference)
    many, labels = case("multi-label", 3, 200)
    each = [sensitivity_at_specificity("multi-label", many[:, [k]], labels[:, [k]], 0.9) for k in range(3)]
    assert sensitivity_at_specificity("multi-label", many, labels, 0.9) == pytest.approx(np.mean(each))
    assert np.isnan(sensitivity_at_specificity("single-label", logits[targets == 1], targets[targets == 1], 0.9))


def test_intervals_are_the_percentiles_of_a_plain_loop_over_patients() -> None:
    logits, targets = case("single-label", 2)
    patients = [f"p{k}" for k in RNG.integers(0, 25, len(targets))]
    found = intervals("single-label", logits, targets, groups=patients, level=0.9, draws=200, seed=3)
    names = np.unique(patients)
    counts = np.random.default_rng(3).multinomial(len(names), np.full(len(names), 1 / len(names)), size=200)
    values = []
    for row in counts:
        chosen = np.concatenate(
            [np.flatnonzero(np.asarray(patients) == name) for name, times in zip(names, row, strict=True) for _ in range(times)]
        )
        values.append(compute_metrics(BUILTIN["single-label"], logits[chosen], targets[chosen])["auroc"])
    assert [found["auroc_low"], found["auroc_high"]] == pytest.approx(np.quantile(values, [0.05, 0.95]))


def test_patients_with_many_samples_widen_the_interval() -> None:
    patients = np.repeat(np.arange(40), 10)
    right = np.repeat(RNG.random(40) < 0.7, 10)
    logits = np.where(right, 1.0, -1.0)[:, None] * [-1, 1]
    targets = np.ones(400, dtype=int)
    by_patient = intervals("single-label", logits, targets, groups=patients.astype(str).tolist())
    by_sample = intervals("single-label", logits, targets)
    widths = [found["accuracy_high"] - found["accuracy_low"] for found in (by_patient, by_sample)]
    assert widths[0] == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 40), rel=0.2)
    assert widths[1] == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 400), rel=0.2)


def test_without_a_mistake_the_accuracy_has_the_exact_interval(caplog: pytest.LogCaptureFixture) -> None:
    targets = np.arange(48) % 2
    logits = np.where(targets, 1.0, -1.0)[:, None] * [-1, 1]
    found = intervals("single-label", logits, targets, draws=50)
    exact = binomtest(48, 48).proportion_ci(0.95, method="exact")
    assert [found["accuracy_low"], found["accuracy_high"]] == pytest.approx([exact.low, exact.high])
    assert "exact one of 48 samples" in caplog.text
    by_patient = intervals("single-label", logits, targets, groups=[f"p{row // 4}" for row in range(48)], draws=50)
    assert by_patient["accuracy_low"] == pytest.approx(binomtest(12, 12).proportion_ci(0.95, method="exact").low)
    all_wrong = intervals("single-label", -logits, targets, draws=50)
    assert [all_wrong["accuracy_low"], all_wrong["accuracy_high"]] == pytest.approx([0, 1 - exact.low])


@pytest.mark.parametrize("units", [(24,), (12, 12), (5, 100), (5, 100, 100), (1, 1, 50), (3, 7, 9, 200), (0, 10)])
def test_the_exact_bound_is_the_smallest_mean_of_shares_that_make_no_mistake_as_unlikely(units: tuple[int, ...]) -> None:
    chance, n, start = np.log(0.025), np.array(units), np.full(len(units), 0.99)
    likely = {"type": "ineq", "fun": lambda p: (n * np.log(np.maximum(p, 1e-12))).sum() - chance}
    found = minimize(np.mean, start, constraints=[likely], bounds=[(1e-9, 1)] * len(units), options={"ftol": 1e-12, "maxiter": 2000})
    assert exact_bound(units, 0.95) == pytest.approx(found.fun, abs=1e-6)


def test_without_a_mistake_the_balanced_accuracy_has_an_exact_interval_by_class() -> None:
    targets = np.array([0] * 5 + [1] * 100)
    logits = np.where(targets, 1.0, -1.0)[:, None] * [-1, 1]
    found = intervals("single-label", logits, targets, draws=50)
    assert [found["balanced_accuracy_low"], found["balanced_accuracy_high"]] == pytest.approx([(0.025 ** (1 / 5) + 1) / 2, 1])
    wrong = intervals("single-label", -logits, targets, draws=50)
    assert [wrong["balanced_accuracy_low"], wrong["balanced_accuracy_high"]] == pytest.approx([0, 1 - found["balanced_accuracy_low"]])
    assert exact_units("single-label", "balanced_accuracy", np.array([0, 0, 1, 1, 2]), list("aabbb")) == (1, 1, 0), "b counts for class 1"
    assert exact_units("single-label", "macro_f1", targets, None) == ()


def test_a_seed_gives_the_same_interval_and_chunks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = case("single-label", 3)
    first = intervals("single-label", logits, targets, draws=100, seed=1)
    assert first == intervals("single-label", logits, targets, draws=100, seed=1)
    assert first != intervals("single-label", logits, targets, draws=100, seed=2)
    monkeypatch.setattr("zoo.engine.inference.confidence_intervals._CELLS", 7 * len(logits))
    assert first == pytest.approx(intervals("single-label", logits, targets, draws=100, seed=1))


def test_what_cannot_be_drawn_is_refused() -> None:
    logits, targets = case("single-label", 2)
    with pytest.raises(OptionError, match="in \\(0, 1\\)"):
        intervals("single-label", logits, targets, level=95)
    with pytest.raises(DataError, match="two or more groups"):
        intervals("single-label", logits, targets, groups=["one"] * len(targets))
    with pytest.raises(OptionError, match="entities"):
        intervals("token-classification", logits, targets)


def test_intervals_from_few_groups_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for number, told in ((12, False), (3, True)):
        caplog.clear()
        groups = tuple(f"p{row % number}" for row in range(24))
        assert drawn_groups(Table(list(range(24)), np.zeros(24), groups=groups)) == list(groups)
        assert ("has 3 groups: intervals drawn from so few are too narrow" in caplog.text) == told
