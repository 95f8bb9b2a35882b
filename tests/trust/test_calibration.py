"""Temperature, outliers, selective prediction and baselines, on numbers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from sklearn import metrics as reference

from zoo.tasks.find import BUILTIN
from zoo.tasks.scores import area, sigmoid
from zoo.tasks.task import Task
from zoo.trust.baselines import baselines
from zoo.trust.calibrated import Calibration, calibrated
from zoo.trust.calibration import RANGE, best_temperature, tempered_threshold
from zoo.trust.metric_table import METRICS
from zoo.trust.outcome import outcome_of
from zoo.trust.outliers import LEAST, MOST, neighbours_of
from zoo.trust.selective import risk_coverage

SINGLE, MULTI, NUMBERS = (BUILTIN[name] for name in ("single-label", "multi-label", "regression"))


def test_the_temperature_that_made_logits_too_large_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4))
    targets = np.array([rng.choice(4, p=row) for row in np.exp(logits) / np.exp(logits).sum(1, keepdims=True)])
    for factor in (0.3, 1.0, 3.0):
        assert best_temperature(SINGLE, factor * logits, targets) == pytest.approx(factor, rel=0.03)
    labels = (rng.random((20_000, 4)) < sigmoid(logits)).astype(float)
    labels[::7, 1] = np.nan
    assert best_temperature(MULTI, 2.5 * logits, labels) == pytest.approx(2.5, rel=0.03)


def test_the_temperature_has_the_lowest_loss_of_any_with_its_prior() -> None:
    rng = np.random.default_rng(0)
    logits, targets = 4 * rng.normal(size=(50, 3)), rng.integers(0, 3, 50)

    def loss(log: float) -> float:
        return SINGLE.metrics(logits / np.exp(log), targets, ())["loss"] + log**2 / 100

    reference_value = scipy.optimize.minimize_scalar(loss, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-10})
    assert np.log(best_temperature(SINGLE, logits, targets)) == pytest.approx(reference_value.x, abs=1e-4)


@pytest.mark.parametrize("name", ["single-label", "multi-label"])
def test_the_search_computes_the_loss_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, task = np.random.default_rng(0), BUILTIN[name]
    logits = 3 * rng.normal(size=(40, 3))
    targets = rng.integers(0, 3, 40) if task is SINGLE else np.where(rng.random((40, 3)) < 0.2, np.nan, rng.random((40, 3)) < 0.5)
    assert task.log_loss(logits, targets) == task.metrics(logits, targets, ())["loss"]
    assert Task.log_loss(task, logits, targets) == task.log_loss(logits, targets), "a plugin's task has that of its metrics"
    found = best_temperature(task, logits, targets)
    monkeypatch.setattr(type(task), "metrics", lambda *args: pytest.fail("all metrics are computed"))
    assert best_temperature(task, logits, targets) == found


def test_samples_that_are_all_right_or_all_wrong_do_not_drive_the_temperature_to_an_extreme() -> None:
    logits = np.where(np.eye(2)[[0, 1] * 10] > 0, 1.0, -1.0)
    right, wrong = (best_temperature(SINGLE, logits, np.array(labels * 10)) for labels in ([0, 1], [1, 0]))
    assert 0.1 < right < 1 < wrong < 50
    assert best_temperature(SINGLE, np.full((4, 2), np.nan), np.array([0, 1, 0, 1])) == 1


def test_a_moved_threshold_decides_as_before() -> None:
    logits = np.random.default_rng(0).normal(size=1000)
    for threshold in (0.1, 0.5, 0.93):
        before, after = sigmoid(logits) > threshold, sigmoid(logits / 2.7) > tempered_threshold(threshold, 2.7)
        assert np.array_equal(before, after)


def test_outliers_are_farther_than_nearly_all_held_out_samples_and_inliers_are_not() -> None:
    rng = np.random.default_rng(0)
    centre = rng.normal(size=32) * 3
    inside = centre + rng.normal(size=(300, 32))
    found = neighbours_of(inside[:200])
    assert found is not None
    near, far = found.score(inside[200:]), found.score(rng.normal(size=(100, 32)) - centre)
    assert (near > 1).mean() == pytest.approx(0.05, abs=0.05)
    assert (far > 1).all()
    assert area(np.r_[near, far], np.arange(200) >= 100) == 1.0
    assert found.score(inside[200:] * 7) == pytest.approx(near, rel=1e-4)  # the length of features says nothing


def test_the_score_is_the_distance_to_the_fifth_neighbour_in_units_of_the_95th_percentile() -> None:
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    features, fresh = rng.normal(size=(60, 8)), rng.normal(size=(10, 8))
    found = neighbours_of(features)
    assert found is not None
    search = NearestNeighbors(n_neighbors=6).fit(found.features)
    unit = np.quantile(search.kneighbors(found.features)[0][:, 5], 0.95)
    rows = fresh / np.linalg.norm(fresh, axis=1, keepdims=True)
    assert found.score(fresh) == pytest.approx(search.kneighbors(rows)[0][:, 4] / unit, rel=1e-3)


def test_few_samples_have_no_reference_many_are_thinned_and_what_is_not_finite_is_left_out() -> None:
    rng = np.random.default_rng(0)
    assert neighbours_of(rng.normal(size=(LEAST - 1, 3))) is None
    found = neighbours_of(np.r_[rng.normal(size=(MOST + 500, 3)), np.full((1, 3), np.nan)])
    assert found is not None
    assert len(found.features) == MOST
    same = neighbours_of(np.ones((LEAST, 3)))
    assert same is not None
    assert np.isfinite(same.score(np.array([[1.0, 0, 0]]))).all()


def test_what_is_saved_gives_the_same_sets_scores_and_logits() -> None:
    rng = np.random.default_rng(0)
    logits, targets, features = rng.normal(size=(50, 3)), rng.integers(0, 3, 50), rng.normal(size=(50, 8))
    made = calibrated(SINGLE, logits, targets, features, head="h", data="d", source="s")
    again = Calibration.from_saved(made.fields(), made.arrays())
    assert (again.head, again.data, again.source, again.samples) == ("h", "d", "s", 50)
    assert np.array_equal(again.logits(logits), made.logits(logits))
    assert np.array_equal(again.sets(SINGLE, logits, 0.9), made.sets(SINGLE, logits, 0.9))
    assert np.array_equal(again.outliers(features), made.outliers(features))


def test_the_risk_coverage_curve_keeps_the_most_confident_first() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]]))
    coverage, risk, confidence = risk_coverage(outcome_of(SINGLE, logits, np.array([0, 1, 0, 0])))
    assert coverage.tolist() == [0.25, 0.5, 1.0]
    assert risk.tolist() == pytest.approx([0, 0.5, 0.5])
    assert confidence == pytest.approx([0.9, 0.8, 0.6])


def test_baselines_are_scikit_learns_dummies() -> None:
    from sklearn.dummy import DummyClassifier

    targets = np.random.default_rng(0).choice(3, 600, p=[0.6, 0.3, 0.1])
    x = np.zeros((600, 1))
    prior = DummyClassifier(strategy="prior").fit(x, targets)
    found = baselines(SINGLE, targets, ("a", "b", "c"), 3, {"brier": METRICS["single-label"]["brier"]})
    assert found["prior"]["loss"] == pytest.approx(reference.log_loss(targets, prior.predict_proba(x)))
    assert found["prior"]["accuracy"] == pytest.approx(reference.accuracy_score(targets, prior.predict(x)))
    assert found["prior"]["macro_f1"] == pytest.approx(reference.f1_score(targets, prior.predict(x), average="macro"))
    assert found["prior"]["auroc"] == 0.5
    assert found["random"]["accuracy"] == pytest.approx(1 / 3, abs=0.02)
    assert found["random"]["auroc"] == pytest.approx(0.5, abs=0.02)
    numbers = np.random.default_rng(0).normal(size=500) + 3
    of_numbers = baselines(NUMBERS, numbers, (), 1, {})
    assert of_numbers["prior"]["r2"] == pytest.approx(0)
    assert of_numbers["prior"]["rmse"] == pytest.approx(numbers.std())
    assert of_numbers["random"]["r2"] == pytest.approx(-1, abs=0.1)
    labels = np.array([[1, 0, np.nan], [1, 0, 1], [1, 1, 0], [0, 0, np.nan]])
    assert baselines(MULTI, labels, ("a", "b", "c"), 3, {})["prior"]["micro_f1"] == pytest.approx(2 * 3 / (4 + 5))
    targets = np.empty(2, dtype=object)
    targets[:] = [np.array([2, 0, 1, 2]), np.array([2, 2])]
    of_words = baselines(BUILTIN["token-classification"], targets, ("B-Disease", "I-Disease", "O"), 3, {})
    shares = np.array([1, 1, 4]) / 6
    assert of_words["prior"]["accuracy"] == pytest.approx(4 / 6)
    assert of_words["prior"]["loss"] == pytest.approx(-(shares * np.log(shares)).sum())
    assert of_words["prior"]["f1"] == 0
    assert 0.1 < of_words["random"]["accuracy"] < 0.6, "the mean of 20 draws, about a third"
