"""Metrics by name equal scikit-learn's, on random and on degenerate data, and weights count samples as repetition does."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as reference

from zoo.errors import OptionError
from zoo.tasks.find import BUILTIN, task_names
from zoo.tasks.scores import sigmoid, softmax
from zoo.trust.metric_table import METRICS, Metric, find_metrics, on_request
from zoo.trust.outcome import outcome_of

SINGLE, MULTI, NUMBERS = (BUILTIN[name] for name in ("single-label", "multi-label", "regression"))


def value(task: str, name: str, logits: Any, targets: Any, **options: Any) -> float:
    return find_metrics(task, name)[name].value(BUILTIN[task], logits, targets, **options)


def classes(n: int = 80, k: int = 4, seed: int = 0, *, absent: int | None = None) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    logits, targets = np.round(rng.normal(size=(n, k)), 1), rng.integers(0, k, n)  # rounded, so that some are equal
    if absent is not None:
        targets[targets == absent] = (absent + 1) % k
    return logits, targets


def of_classes(logits: Any, targets: Any) -> dict[str, float]:
    """The metrics of scikit-learn for one class per sample."""
    p, named, labels = softmax(logits), logits.argmax(1), list(range(logits.shape[1]))
    two = len(labels) == 2
    one_hot = np.eye(len(labels))[targets]
    present = np.flatnonzero(one_hot.any(0))
    scores = logits[:, 1] - logits[:, 0] if two else p
    return {
        "micro_f1": reference.f1_score(targets, named, average="micro"),
        "weighted_f1": reference.f1_score(targets, named, average="weighted", zero_division=0.0),
        "average_precision": reference.average_precision_score(targets, scores)
        if two
        else reference.average_precision_score(one_hot[:, present], p[:, present]),
        "kappa": reference.cohen_kappa_score(targets, named),
        "quadratic_kappa": reference.cohen_kappa_score(targets, named, weights="quadratic", labels=labels),
        "mcc": reference.matthews_corrcoef(targets, named),
        "brier": reference.brier_score_loss(targets, p[:, 1]) if two else float(((p - one_hot) ** 2).sum(1).mean()),
    }


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("absent", [None, 0])
def test_metrics_of_classes_are_scikit_learns(k: int, absent: int | None) -> None:
    logits, targets = classes(k=max(k, 3) if absent is not None else k, absent=absent)
    found = {name: value("single-label", name, logits, targets) for name in of_classes(logits, targets)}
    assert found == pytest.approx(of_classes(logits, targets), abs=1e-12)


def test_every_metric_of_classes_is_compared_or_has_a_test_of_its_own() -> None:
    own = {"ece", "aurc"}
    assert set(on_request("single-label")) == {*of_classes(*classes()), *own}


def test_top_k_counts_the_k_likeliest_and_top_1_is_the_accuracy() -> None:
    logits, targets = np.random.default_rng(0).normal(size=(60, 5)), np.arange(60) % 5
    for k in (1, 2, 4):
        assert value("single-label", f"top_{k}", logits, targets) == pytest.approx(reference.top_k_accuracy_score(targets, logits, k=k))
    tied, truth = classes(k=5)
    assert value("single-label", "top_1", tied, truth) == reference.accuracy_score(truth, tied.argmax(1))
    assert value("single-label", "top_2", np.zeros((3, 3)), np.array([0, 1, 2])) == pytest.approx(2 / 3)


def plain_ece(shares: Any, happened: Any) -> float:
    """Naeini et al. 2015 and Guo et al. 2017, by a loop over the bins (low, high]."""
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (shares > low) & (shares <= low + 1 / 15)
        if inside.any():
            total += abs(shares[inside].mean() - happened[inside].mean()) * inside.sum()
    return total / len(shares)


def test_the_calibration_error_is_the_mean_distance_over_bins() -> None:
    rng = np.random.default_rng(0)
    logits, targets = 2 * rng.normal(size=(300, 3)), rng.integers(0, 3, 300)
    p = softmax(logits)
    assert value("single-label", "ece", logits, targets) == pytest.approx(plain_ece(p.max(1), p.argmax(1) == targets))
    labels = (rng.random((300, 3)) < 0.4).astype(float)
    assert value("multi-label", "ece", logits, labels) == pytest.approx(plain_ece(sigmoid(logits).ravel(), labels.ravel()))
    sure = np.where(np.eye(2)[[0, 1, 1]] > 0, 50.0, -50.0)
    assert value("single-label", "ece", sure, np.array([0, 1, 1])) == pytest.approx(0.0)
    assert value("single-label", "ece", sure, np.array([1, 0, 0])) == pytest.approx(1.0)


def test_the_area_under_the_risk_coverage_curve_is_the_mean_risk_of_every_share() -> None:
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    order = np.argsort(-softmax(logits).max(1))
    wrong = (logits.argmax(1) != targets)[order]
    expected = np.mean([wrong[: n + 1].mean() for n in range(50)])
    assert value("single-label", "aurc", logits, targets) == pytest.approx(expected)
    constant = np.tile([1.0, 0.0], (10, 1))
    assert value("single-label", "aurc", constant, np.arange(10) % 2) == pytest.approx(0.5)  # all have one confidence


def test_specificity_at_a_sensitivity_is_the_best_point_of_the_roc_curve() -> None:
    from zoo.trust import class_metrics, label_metrics

    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 200)
    logits = np.round(rng.normal(size=(200, 2)) + np.eye(2)[targets], 1)
    fpr, tpr, _ = reference.roc_curve(targets, logits[:, 1] - logits[:, 0], drop_intermediate=False)
    for sensitivity in (0.0, 0.5, 0.9, 1.0):
        best = (1 - fpr)[tpr >= sensitivity - 1e-12].max()
        found = Metric("", "", class_metrics.specificity_at(sensitivity)).value(SINGLE, logits, targets)
        assert found == pytest.approx(best)
        labels = targets[:, None].astype(float)
        scores = logits[:, [1]] - logits[:, [0]]
        assert Metric("", "", label_metrics.specificity_at(sensitivity)).value(MULTI, scores, labels) == pytest.approx(best)


@pytest.mark.parametrize("gaps", [False, True])
def test_metrics_of_labels_are_scikit_learns_over_the_known_ones(gaps: bool) -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(60, 3)), (rng.random((60, 3)) < 0.4).astype(float)
    cut = (0.4, 0.5, 0.7)
    named = sigmoid(logits) > cut
    if not gaps:
        expected = {
            "weighted_f1": reference.f1_score(targets, named, average="weighted"),
            "exact_match": reference.accuracy_score(targets, named),
            "label_accuracy": 1 - reference.hamming_loss(targets, named),
            "brier": reference.brier_score_loss(targets.ravel(), sigmoid(logits).ravel()),
        }
        assert set(on_request("multi-label")) == {*expected, "ece"}
    else:  # a label that is missing everywhere, and rows without any, change nothing
        expected = {name: value("multi-label", name, logits, targets, thresholds=cut) for name in on_request("multi-label")}
        logits, targets = np.concatenate([logits, logits[:9]]), np.concatenate([targets, np.full((9, 3), np.nan)])
        logits, targets, cut = np.c_[logits, logits[:, 0]], np.c_[targets, np.full(69, np.nan)], (*cut, 0.5)
    assert {name: value("multi-label", name, logits, targets, thresholds=cut) for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("outputs", [1, 2])
def test_metrics_of_numbers_are_scikit_learns(outputs: int) -> None:
    rng = np.random.default_rng(0)
    targets = np.round(rng.normal(size=(41, outputs)), 1) + 5
    found = np.round(targets + rng.normal(size=targets.shape), 1)
    expected = {
        "mse": reference.mean_squared_error(targets, found),
        "median_error": reference.median_absolute_error(targets, found),
        "max_error": max(reference.max_error(targets[:, k], found[:, k]) for k in range(outputs)),
        "mape": reference.mean_absolute_percentage_error(targets, found),
        "explained_variance": reference.explained_variance_score(targets, found),
        "pearson": np.mean([scipy.stats.pearsonr(targets[:, k], found[:, k])[0] for k in range(outputs)]),
        "spearman": np.mean([scipy.stats.spearmanr(targets[:, k], found[:, k])[0] for k in range(outputs)]),
    }
    assert set(on_request("regression")) == set(expected)
    assert {name: value("regression", name, found, targets) for name in expected} == pytest.approx(expected)
    even = slice(0, 40)
    assert value("regression", "median_error", found[even], targets[even]) == pytest.approx(
        reference.median_absolute_error(targets[even], found[even])
    )


def test_a_constant_prediction_has_no_correlation_whatever_its_rounding() -> None:
    targets = np.random.default_rng(0).normal(size=(167, 1))
    for constant in (1.37, 1e-9, 1e9, 0.0):
        found = np.full_like(targets, constant)
        assert np.isnan([value("regression", name, found, targets) for name in ("pearson", "spearman")]).all()
    assert value("regression", "pearson", targets * 1e-9 + 1e-9, targets) == pytest.approx(1.0)


@pytest.mark.parametrize("task", ["single-label", "multi-label", "regression"])
def test_weights_count_samples_as_repetition_does(task: str) -> None:
    rng = np.random.default_rng(2)
    logits = np.round(rng.normal(size=(40, 3)), 1)
    targets: Any = rng.integers(0, 3, 40)
    targets = {"single-label": targets, "multi-label": np.eye(3)[targets], "regression": logits + rng.normal(size=(40, 3))}[task]
    weights = rng.integers(0, 4, (3, 40)).astype(float)
    for name in on_request(task):
        metric = METRICS[task][name]
        found = metric.values(outcome_of(BUILTIN[task], logits, targets), weights)
        repeated = [metric.value(BUILTIN[task], np.repeat(logits, row, 0), np.repeat(targets, row, 0)) for row in weights.astype(int)]
        assert found.tolist() == pytest.approx(repeated), name


ODD = {
    "one sample": (np.array([[0.2, 0.1, 0.0]]), np.array([0])),
    "one class": (np.random.default_rng(0).normal(size=(6, 3)), np.ones(6, dtype=int)),
    "one class, always named": (np.tile([0.0, 3.0, 0.0], (6, 1)), np.ones(6, dtype=int)),
    "all equal": (np.zeros((6, 3)), np.arange(6) % 3),
    "not a number": (np.full((6, 3), np.nan), np.arange(6) % 3),
    "infinite": (np.where(np.eye(3)[[0, 1, 2, 0]] > 0, np.inf, 0.0), np.array([0, 1, 2, 0])),
    "no sample": (np.zeros((0, 3)), np.zeros(0, dtype=int)),
}


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("task", ["single-label", "multi-label", "regression"])
def test_degenerate_data_give_a_number_or_nothing_and_no_warning(task: str, case: str) -> None:
    logits, targets = ODD[case]
    rows = {"single-label": targets, "multi-label": np.eye(3)[targets], "regression": np.eye(3)[targets]}[task]
    for name in [*on_request(task), *(["top_2"] if task == "single-label" else [])]:
        found = value(task, name, logits, rows)  # a warning is an error in these tests
        assert np.isnan(found) or -1.0000001 <= found <= 1e6, name
        if case in ("not a number", "infinite", "no sample"):
            assert np.isnan(found), name


def test_what_scikit_learn_gives_degenerate_data_is_given_here() -> None:
    one, named = ODD["one class, always named"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert value("single-label", "mcc", one, named) == reference.matthews_corrcoef(named, one.argmax(1)) == 0
        assert np.isnan(value("single-label", "kappa", one, named))
        assert np.isnan(reference.cohen_kappa_score(named, one.argmax(1)))
    assert np.isnan(value("regression", "explained_variance", np.zeros((4, 1)), np.ones((4, 1))))
    assert np.isnan(value("regression", "pearson", np.zeros((4, 1)), np.arange(4.0)[:, None]))
    assert np.isnan(value("regression", "mape", np.zeros((2, 1)), np.zeros((2, 1))))


def test_the_table_has_every_built_in_task_and_all_that_its_metrics_give() -> None:
    assert set(METRICS) == set(BUILTIN) <= set(task_names())
    logits, targets = classes()
    given = {
        "single-label": SINGLE.metrics(logits, targets, ()),
        "multi-label": MULTI.metrics(logits, np.eye(4)[targets], ()),
        "regression": NUMBERS.metrics(logits, np.eye(4)[targets], ()),
        "token-classification": BUILTIN["token-classification"].metrics(
            [logits],
            [targets],
            ("O", "B-X", "I-X", "B-Y"),  # type: ignore[arg-type]  # a list of arrays will do
        ),
    }
    for task, found in given.items():
        assert {name for name, metric in METRICS[task].items() if metric.compute is None} == set(found)
        lower = {name for name, metric in METRICS[task].items() if metric.lower}
        assert lower & set(BUILTIN[task].monitors) == set(BUILTIN[task].lower_is_better) & set(found)


def test_a_name_that_the_task_does_not_have_is_an_error_with_the_nearest_or_the_one_used_here() -> None:
    for task, name, hint in (
        ("single-label", "kapa", "did you mean 'kappa'"),
        ("single-label", "log_loss", "it is called 'loss' here"),
        ("single-label", "roc_auc", "it is called 'auroc' here"),
        ("single-label", "top_k", "it is called 'top_5' here"),
        ("multi-label", "average_precision", "it is called 'map' here"),
        ("regression", "mcc", "They are: mae"),
        ("token-classification", "mcc", "They are: loss, f1"),
    ):
        with pytest.raises(OptionError, match=hint):
            find_metrics(task, [name])
    with pytest.raises(OptionError, match=r"(?s)'one'.*'two'"):
        find_metrics("single-label", ["one", "two"])
    with pytest.raises(OptionError, match="always 1, as the model has 3 classes"):
        find_metrics("single-label", "top_5", 3)
    assert find_metrics("single-label", ["accuracy"]) == {}
    assert list(find_metrics("regression", "all")) == on_request("regression")
