"""Transferability scores against reference values of published implementations, and what they must do at the edges."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

import zoo
from tests.toy import ToyNet, toy_spec
from zoo.models.backbone import Backbone
from zoo.select.transferability.class_scatter import h_score, regularized_h_score, transrate
from zoo.select.transferability.log_evidence import logme
from zoo.select.transferability.neighbours import neighbour_votes
from zoo.select.transferability.source_head import source_probabilities
from zoo.select.transferability.source_labels import leep, nce
from zoo.weights.load import write

Arrays = dict[str, npt.NDArray[np.generic]]
Case = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]
BY_LABELS = (logme, h_score, regularized_h_score, transrate)


@pytest.fixture(scope="module")
def case(shared: Path) -> tuple[Arrays, dict[str, float]]:
    folder = shared / "reference"
    if not (folder / "transfer_case.npz").is_file():
        pytest.skip("no ../shared/reference beside this checkout")
    with np.load(folder / "transfer_case.npz") as arrays:
        return dict(arrays), json.loads((folder / "transfer_case.json").read_text(encoding="utf-8"))


def clusters(samples: int, dim: int, apart: float, classes: int = 3, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    return rng.normal(size=(samples, dim)) + apart * rng.normal(size=(classes, dim))[labels], labels


@pytest.mark.parametrize("score", BY_LABELS)
def test_a_score_of_features_is_that_of_the_reference(case: tuple[Arrays, dict[str, float]], score) -> None:  # type: ignore[no-untyped-def]
    arrays, values = case
    assert score(arrays["features"], arrays["labels"]) == pytest.approx(values[score.__name__], rel=1e-4)


def test_leep_and_nce_are_those_of_the_reference(case: tuple[Arrays, dict[str, float]]) -> None:
    arrays, values = case
    assert leep(arrays["source_probs"], arrays["labels"]) == pytest.approx(values["leep"], rel=1e-4)  # type: ignore[arg-type]
    assert nce(arrays["source_labels"], arrays["labels"]) == pytest.approx(values["nce"], rel=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(90, 12), (30, 60)], ids=["more samples", "more features"])
def test_scores_by_principal_axes_are_those_of_the_dense_formulas(shape: tuple[int, int]) -> None:
    from sklearn.covariance import ledoit_wolf

    features, labels = clusters(*shape, apart=1.0)
    f = features - features.mean(0)
    means = np.stack([f[labels == label].mean(0) for label in range(3)])[labels]
    dense = np.trace(np.linalg.pinv(f.T @ f) @ (means.T @ means))
    assert h_score(features, labels) == pytest.approx(dense, rel=1e-9)
    shrunk, shrinkage = ledoit_wolf(f, assume_centered=True)
    regularized = (1 - shrinkage) * np.trace(np.linalg.inv(shrunk) @ (means.T @ means)) / (len(f) - 1)
    assert regularized_h_score(features, labels) == pytest.approx(regularized, rel=1e-9)


def test_a_feature_that_follows_from_others_adds_nothing_to_the_h_score() -> None:
    features, labels = clusters(90, 12, apart=1.0)
    rng = np.random.default_rng(1)
    more = np.c_[features, features @ rng.normal(size=(12, 3)), np.full((90, 1), 2.0)]
    assert h_score(more, labels) == pytest.approx(h_score(features, labels), rel=1e-9)
    nearly = np.c_[features, features[:, 0] + 1e-5 * rng.normal(size=90)]
    f = nearly - nearly.mean(0)
    means = np.stack([f[labels == label].mean(0) for label in range(3)])[labels]
    assert h_score(nearly, labels) == pytest.approx(np.trace(np.linalg.pinv(f.T @ f, rcond=1e-13) @ (means.T @ means)), rel=1e-4)


@pytest.mark.parametrize("score", BY_LABELS)
@pytest.mark.parametrize("shape", [(90, 12), (30, 60)], ids=["more samples", "more features"])
def test_classes_that_lie_apart_score_higher(score, shape: tuple[int, int]) -> None:  # type: ignore[no-untyped-def]
    near, far = (score(*clusters(*shape, apart=apart)) for apart in (0.0, 2.0))
    assert np.isfinite([near, far]).all()
    if score is h_score and shape[0] < shape[1]:
        assert near == pytest.approx(far) == pytest.approx(2.0)  # the covariance has no direction left: always classes less 1
    else:
        assert far > near


@pytest.mark.parametrize("score", BY_LABELS)
def test_the_numbers_of_the_classes_do_not_matter(score) -> None:  # type: ignore[no-untyped-def]
    features, labels = clusters(60, 8, apart=1.0)
    assert score(features, labels * 7 + 2) == pytest.approx(score(features, labels))


@pytest.mark.parametrize("score", BY_LABELS)
def test_constant_features_give_a_number(score) -> None:  # type: ignore[no-untyped-def]
    features, labels = clusters(60, 8, apart=1.0)
    features[:, 3] = 5.0
    assert np.isfinite(score(features, labels))
    assert np.isfinite(score(np.ones((60, 8)), labels))


def test_logme_is_the_evidence_of_the_dense_formula_with_fewer_samples_than_features() -> None:
    features, _ = clusters(20, 40, apart=0.0)
    values = features[:, 0] + 0.1 * np.random.default_rng(1).normal(size=20)
    best = -np.inf
    for alpha in np.geomspace(1e-3, 1e3, 60):
        for beta in np.geomspace(1e-3, 1e3, 60):
            covariance = np.eye(20) / beta + features @ features.T / alpha
            density = -0.5 * (values @ np.linalg.solve(covariance, values) + np.linalg.slogdet(covariance)[1] + 20 * np.log(2 * np.pi))
            best = max(best, density / 20)
    assert logme(features, values) == pytest.approx(best, abs=0.05)


def test_a_source_class_per_label_makes_leep_and_nce_perfect() -> None:
    labels = np.arange(12) % 3
    assert nce(labels + 4, labels) == pytest.approx(0.0)
    assert leep(np.eye(3)[labels], labels) == pytest.approx(0.0)
    assert nce(np.zeros(12, dtype=np.int64), labels) == pytest.approx(-np.log(3))


def test_neighbours_vote_for_held_out_samples_only_by_training_samples() -> None:
    features, labels = clusters(30, 5, apart=6.0)
    folds = [(np.arange(10, 30), np.arange(10))]
    votes = neighbour_votes(features, labels, folds, 3)
    assert (votes[:10].argmax(1) == labels[:10]).all()
    assert np.isnan(votes[10:]).all()
    nobody = neighbour_votes(features, labels, [(np.flatnonzero(labels > 0), np.flatnonzero(labels == 0))], 3)
    assert (nobody[labels == 0].argmax(1) != 0).all(), "a class that no training sample has cannot be voted for"


def test_neighbours_of_values_give_their_mean() -> None:
    features = np.array([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [1.0, 0.005]])
    votes = neighbour_votes(features, np.array([2.0, 4.0, 100.0, 0.0]), [(np.arange(3), np.array([3]))], 1, neighbours=2)
    assert votes[3, 0] == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("also", ["", "head.norm.weight", "fc_norm.weight"])
def test_the_source_head_is_the_linear_layer_that_the_weights_come_with(tmp_path: Path, also: str) -> None:
    network = ToyNet()
    head = torch.nn.Linear(8, 5)
    state = network.state_dict() | {f"head.fc.{name}": value for name, value in head.state_dict().items()}
    write(state | ({also: torch.ones(8)} if also else {}), tmp_path / "model.safetensors")
    backbone = Backbone(toy_spec(weights=zoo.Weights(file=str(tmp_path / "model.safetensors"))))
    features = torch.randn(6, 8)
    found = source_probabilities(backbone, features)
    if also:
        assert found is None, "it would need more than the pooled features"
    else:
        assert found is not None
        np.testing.assert_allclose(found, head(features).softmax(1).detach().numpy(), rtol=1e-4)
        assert source_probabilities(backbone, torch.randn(6, 9)) is None
    assert source_probabilities(Backbone(toy_spec()), features) is None
