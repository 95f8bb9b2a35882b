"""Validators beside their definitions, and the choice that they make."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from zoo.transfer.domain.choosing.choice import Candidate, chosen_of, harms_source
from zoo.transfer.domain.choosing.evidence import Evidence, density_ratio
from zoo.transfer.domain.shift import measure_shift, predicted_differences
from zoo.transfer.domain.validators import infomax, informations, mean_entropy, soft_neighborhood_density, softmax, weighted_risk


def test_infomax_is_the_logarithm_of_the_classes_for_sure_and_even_predictions_and_0_for_one_class() -> None:
    assert infomax(np.eye(4)[np.arange(40) % 4]) == pytest.approx(np.log(4), abs=1e-6)
    assert infomax(np.eye(4)[np.zeros(40, int)]) == pytest.approx(0.0, abs=1e-6)
    assert mean_entropy(np.full((3, 4), 0.25)) == pytest.approx(np.log(4), abs=1e-6)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_density_of_neighbours_is_that_of_the_whole_matrix_in_blocks_of_any_size(block: int) -> None:
    probabilities = softmax(np.random.default_rng(0).normal(size=(50, 5)) * 3)
    rows = probabilities / np.linalg.norm(probabilities, axis=1, keepdims=True)
    similar = rows @ rows.T / 0.05
    np.fill_diagonal(similar, -1 / 0.05)
    shares = softmax(similar)
    whole = -(shares * np.log(shares)).sum(1).mean()
    assert soft_neighborhood_density(probabilities, block=block) == pytest.approx(whole, rel=1e-6)


def test_the_weighted_risk_is_that_of_the_target() -> None:
    source = np.random.default_rng(0)
    rows = source.normal(0, 1, 20_000)
    losses = (rows > 1).astype(float)  # the risk under the target N(1, 1) is one half
    ratio = np.exp(rows - 0.5)
    assert losses.mean() == pytest.approx(0.16, abs=0.01)
    risk, error = weighted_risk(losses, ratio)
    assert risk == pytest.approx(0.5, abs=3 * error)
    assert error < 0.02
    assert weighted_risk(losses, np.ones_like(rows))[0] == pytest.approx(losses.mean())


@pytest.mark.filterwarnings("ignore")
def test_entropy_neighbours_and_weighted_risk_are_those_of_skada(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = pytest.importorskip("skada.metrics", reason="skada is not installed: it is in the dependency group 'dev'")
    from scipy.special import softmax as shares
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    class Domainless(LogisticRegression):  # type: ignore[misc]  # ships no types
        """A classifier that is asked as skada asks: with the domain of each sample."""

        def predict_proba(self, rows: object, sample_domain: object = None, allow_source: bool = False) -> object:
            return super().predict_proba(rows)

        def predict_log_proba(self, rows: object, sample_domain: object = None, allow_source: bool = False) -> object:
            return super().predict_log_proba(rows)

    random = np.random.default_rng(0)
    inputs = np.concatenate([random.normal(0, 1, (90, 4)), random.normal(0.4, 1, (60, 4))])
    labels = (inputs[:, 0] + random.normal(0, 1, 150) > 0).astype(int) + (inputs[:, 1] > 1)
    source = np.arange(150) < 90
    domains = np.where(source, 1, -2)
    model = Domainless().fit(inputs[source], labels[source])
    probabilities = softmax(model.decision_function(inputs[~source]))

    ask = {"X": inputs, "y": labels, "sample_domain": domains}
    theirs = metrics.PredictionEntropyScorer()._score(None, model, **ask)  # its mean is also over the classes
    assert mean_entropy(probabilities) == pytest.approx(-theirs * probabilities.shape[1], rel=1e-6)
    # skada 0.6 normalizes over the whole matrix; the paper, and we, over the neighbours of each sample
    monkeypatch.setattr(metrics, "softmax", lambda values: shares(values, axis=1))
    assert soft_neighborhood_density(probabilities) == pytest.approx(metrics.SoftNeighborhoodDensity()._score(None, model, **ask), rel=1e-6)

    pipe = make_pipeline(StandardScaler(), Domainless()).fit(inputs[source], labels[source])
    pipe.predict_proba = lambda rows, **_: pipe[-1].predict_proba(pipe[:-1].transform(rows))
    train, held, _, held_labels = train_test_split(inputs[source], labels[source], test_size=0.33, random_state=np.random.RandomState(0))
    scaled = [pipe[:-1].transform(rows) for rows in (train, inputs[~source], held)]
    judge = LogisticRegression().fit(np.concatenate(scaled[:2]), [1] * len(train) + [0] * 60)
    chances = judge.predict_proba(scaled[2])

    def losses(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
        return -np.log(found[np.arange(len(truth)), truth])[:, None]  # a column: skada multiplies it by a column of weights

    theirs = metrics.DeepEmbeddedValidation(loss_func=losses, random_state=0)._score(None, pipe, **ask)
    mine = losses(held_labels, pipe.predict_proba(held))[:, 0]
    assert weighted_risk(mine, len(train) / 60 * chances[:, 0] / chances[:, 1])[0] == pytest.approx(-theirs, rel=1e-6)


def test_the_density_ratio_follows_the_shift() -> None:
    source = np.random.default_rng(0)
    here, there = source.normal(0, 1, (400, 3)).astype(np.float32), source.normal(0, 1, (400, 3)).astype(np.float32)
    there[:, 0] += 1
    found = density_ratio(here, there, here, seed=0)
    expected = np.exp(here[:, 0] - 0.5)
    assert np.corrcoef(np.log(found), np.log(expected))[0, 1] > 0.95
    assert found.mean() == pytest.approx(1.0, abs=0.15)


def test_the_shift_is_measured_and_absent_between_halves_of_one_domain() -> None:
    source = np.random.default_rng(0)
    rows = source.normal(0, 1, (300, 4)).astype(np.float32)
    none, large = measure_shift(rows[:150], rows[150:], seed=0), measure_shift(rows[:150], rows[150:] + 5, seed=0)
    assert none.a_distance < 0.4
    assert none.p > 1e-3
    assert large.a_distance > 1.9
    assert large.auroc > 0.99


def test_classes_that_are_missing_or_new_are_noticed_in_the_predictions() -> None:
    even = np.eye(4)[np.arange(80) % 4] * 0.9 + 0.025
    assert predicted_differences("abcd", even, even) == []
    (partial,) = predicted_differences("abcd", even, np.eye(4)[np.arange(80) % 3] * 0.9 + 0.025)
    assert "hardly any sample of the target is predicted as d" in partial
    unsure = np.eye(4)[np.arange(80) % 4] * 0.2 + 0.2
    (new,) = predicted_differences("abcd", even, unsure)
    assert "open set" in new


USUAL = {"accuracy": 0.9, "error": 0.02, "infomax": 1.0, "entropy": 0.5, "snd": 3.0, "variety": 0.9}
USUAL |= {"dev": 0.4, "dev_error": 0.01, "dev_samples": 50.0}
GOOD = {"infomax": 1.5, "entropy": 0.3, "snd": 3.5, "dev": 0.3}


def told(*, samples: int = 100, spread: float = 0.0, **values: float) -> Evidence:
    """Return evidence of some samples, of which what each tells differs by ``spread`` from one to the next."""
    given = USUAL | values
    each = {name: given[name] + spread * (-1.0) ** np.arange(samples) for name in ("infomax", "entropy", "snd")}
    return Evidence(**given, each=each | {"right": (np.arange(samples) < round(given["accuracy"] * samples)).astype(float)})


@pytest.mark.parametrize(
    ("others", "expected", "note"),
    [
        ({"coral": told(**GOOD)}, "coral", ""),
        ({"coral": told(**GOOD), "dan": told(**GOOD | {"snd": 4.0})}, "dan", ""),
        ({"coral": told(**GOOD, accuracy=0.84)}, "source-only", "its accuracy on the source is 0.840, lower than 0.900"),
        ({"coral": told(**GOOD, accuracy=0.85)}, "coral", ""),  # what a method may cost
        ({"coral": told(**GOOD, spread=3.0)}, "source-only", "only dev prefers it to source-only by more than noise"),
        ({"coral": told(**GOOD | {"snd": 1.0, "dev": 0.9})}, "source-only", "only infomax, entropy prefers it"),
        ({"coral": told(**GOOD | {"infomax": 0.9})}, "source-only", "only entropy, snd, dev prefers it"),
        ({"coral": told()}, "source-only", "of infomax, entropy, snd none prefers it"),
        ({"coral": told(**GOOD | {"snd": 1.0, "dev": 0.9, "dev_samples": 2.0})}, "coral", ""),
        ({"coral": told(**GOOD | {"snd": 1.0, "dev": 0.9, "dev_error": 1.0})}, "coral", ""),
        ({"coral": told(**GOOD | {"infomax": 0.9, "variety": 0.1})}, "source-only", "of infomax, dev only dev prefers it"),
    ],
)
def test_a_method_is_chosen_where_most_validators_prefer_it_and_the_source_is_not_harmed(
    others: dict[str, Evidence], expected: str, note: str
) -> None:
    found, reason = chosen_of([Candidate("source-only", told()), *(Candidate(name, one) for name, one in others.items())])
    (chosen,) = [one.method for one in found if one.chosen]
    assert chosen == expected
    assert expected in reason
    assert note in found[1].note


@pytest.mark.parametrize(("lost", "won", "harms"), [(3, 0, False), (4, 0, True), (5, 1, False), (8, 2, True), (10, 3, True)])
def test_harm_is_told_from_noise_by_the_samples_on_which_two_methods_differ(lost: int, won: int, harms: bool) -> None:
    right = np.ones(45)
    before, after = right.copy(), right.copy()
    before[:won], after[won : won + lost] = 0, 0
    one, baseline = (replace(told(accuracy=float(each.mean())), each={"right": each}) for each in (after, before))
    assert harms_source(one, baseline) == harms


def test_the_spread_of_infomax_over_samples_is_that_of_its_draws() -> None:
    random = np.random.default_rng(0)
    probabilities = softmax(random.normal(size=(400, 4)) * 2)
    each = informations(probabilities)
    assert each.mean() == pytest.approx(infomax(probabilities), abs=1e-9)
    draws = [infomax(probabilities[random.integers(0, 400, 400)]) for _ in range(300)]
    assert each.std() / 20 == pytest.approx(np.std(draws), rel=0.15)
