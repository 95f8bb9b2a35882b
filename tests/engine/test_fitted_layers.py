"""Layers that are fitted side by side are those that each would be alone, and the rule that chooses their penalty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from tests.engine.test_solved_head import CLASSIC, CPU, clusters, fit, folds, of_classes
from tests.engine.tiny import model
from zoo.engine.solved import fitted_layers, penalties
from zoo.engine.solved.axes import Axes
from zoo.engine.solved.fitted_layers import FittedLayers, Step
from zoo.engine.solved.head_solver import held_out_logits, solve
from zoo.engine.solved.penalties import HeldOut

TIGHT = 1e-5


def counted(y: Any) -> tuple[Any, list[int]]:
    """Return a loss and the list of the numbers of rows that it is called with."""
    loss, calls = of_classes(y), list[int]()

    def of_rows(logits: Tensor, rows: Any) -> Tensor:
        calls.append(len(rows))
        return loss(logits, rows)

    return of_rows, calls


@pytest.mark.parametrize(("samples", "dim"), [(90, 12), (30, 60)], ids=["more samples", "more features"])
def test_layers_side_by_side_are_those_of_logistic_regression_on_their_own_rows(samples: int, dim: int) -> None:
    x, y = clusters(samples, dim, scales=2.0)
    axes = Axes(torch.tensor(x), centred=True)
    values, parts = axes.rows.double().numpy(), [train for train, _ in folds(y)[:3]]
    layers = FittedLayers(axes, parts, 3, of_classes(y), bias=True)
    for penalty in (100.0, 3.0, 0.3):
        logits = layers.fit(torch.tensor([penalty]), tolerance=TIGHT)
        for number, rows in enumerate(parts):
            peer = LogisticRegression(C=1 / penalty, max_iter=5000, tol=1e-8).fit(values[rows], y[rows])
            assert np.abs(torch.softmax(logits[:, number], 1).numpy() - peer.predict_proba(values)).max() < 2e-3
    assert torch.allclose(logits, torch.einsum("na,alo->nlo", axes.rows, layers.weight[:-1]) + layers.weight[-1], atol=1e-3)


def test_the_history_of_one_penalty_serves_the_next() -> None:
    x, y = clusters(120, 20, scales=2.0)
    axes, everything = Axes(torch.tensor(x), centred=True), [np.arange(120)]
    loss, calls = counted(y)
    going_on = FittedLayers(axes, everything, 3, loss, bias=True)
    going_on.fit(torch.tensor([1.0]), tolerance=TIGHT)
    start, before = going_on.weight.clone(), len(calls)
    going_on.fit(torch.tensor([0.1]), tolerance=TIGHT)
    middle = len(calls)
    anew = FittedLayers(axes, everything, 3, loss, bias=True, start=start)
    anew.fit(torch.tensor([0.1]), tolerance=TIGHT)
    assert torch.allclose(going_on.weight, anew.weight, atol=1e-3)
    assert middle - before < len(calls) - middle


def test_a_step_under_another_penalty_is_that_between_the_same_weights() -> None:
    source = torch.Generator().manual_seed(0)
    by, curvature = torch.randn(5, 2, 3, generator=source), torch.rand(5, 2, 3, generator=source) + 0.1
    by[:, 1] = 0.0  # a layer that is ready

    def step(penalty: float) -> Step:
        stiff = curvature.clone()
        stiff[:-1] += penalty  # the bias has no penalty
        return Step.between(by, stiff * by)

    for mine, theirs in zip(step(1.0).stiffened(torch.tensor([2.0])), step(3.0), strict=True):
        assert torch.allclose(mine, theirs)
        assert not mine[:, 1].any()
        assert mine[:, 0].all()


def test_folds_that_are_too_large_side_by_side_are_fitted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clusters(60, 8, scales=2.0)
    found = []
    for most, rows in ((penalties.TOGETHER, 240), (0, 48)):
        monkeypatch.setattr(penalties, "TOGETHER", most)
        loss, calls = counted(y)
        found.append(held_out_logits(torch.tensor(x), 3, loss, folds(y), device=CPU))
        assert calls[0] == rows
    assert found[0][1] == found[1][1]
    assert float((found[0][0] - found[1][0]).abs().max()) < 0.02


def test_the_strongest_penalty_within_one_standard_error_of_the_lowest_loss_is_chosen() -> None:
    means = np.array([[0.9, 0.5], [0.55, 0.8], [0.5, np.inf], [0.6, np.inf]])
    errors = np.array([[0.3, 0.1], [0.3, 0.1], [0.06, 0.1], [0.3, 0.1]])
    logits = torch.arange(4.0)[:, None, None].expand(4, 5, 2)
    found = HeldOut(np.array([100.0, 10.0, 1.0, 0.1]), means, errors, logits, logits)
    assert found.chosen.tolist() == [10.0, 100.0]
    assert found.chosen_of(logits).tolist() == [[1.0, 0.0]] * 5
    alone = HeldOut(found.penalties, means[:, :1], errors[:, :1], logits, logits)
    assert alone.chosen.tolist() == [10.0]
    assert alone.chosen_of(logits).tolist() == [[1.0, 1.0]] * 5


def test_few_samples_of_two_classes_are_told_apart_as_well_as_by_scikit_learn() -> None:
    """Threes and eights of the digits, 16 of each: mean over twenty draws, within half a point."""
    pixels, labels = load_digits(return_X_y=True)
    chosen = np.isin(labels, (3, 8))
    x, y = pixels[chosen].astype(np.float32), (labels[chosen] == 8).astype(np.int64)
    mine, peers = [], []
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(y))
        rows = np.concatenate([order[y[order] == k][:16] for k in range(2)])
        rest, part = np.setdiff1d(order, rows), folds(y[rows], seed)
        found = solve(torch.tensor(x[rows]), 2, of_classes(y[rows]), part, device=CPU)
        assert found.bias is not None
        mine.append(((x[rest] @ found.weight.numpy().T + found.bias.numpy()).argmax(1) == y[rest]).mean())
        peer = make_pipeline(StandardScaler(), LogisticRegressionCV(cv=part, max_iter=500, **CLASSIC)).fit(x[rows], y[rows])
        peers.append(peer.score(x[rest], y[rest]))
    assert 0.8 < np.mean(peers) < 0.99
    assert np.mean(mine) > np.mean(peers) - 0.005


def test_units_that_are_constant_but_for_rounding_have_no_weight() -> None:
    x, y = clusters(60, 6, scales=2.0)
    dust = np.stack([1e-33 * y, 1.0 + 1e-7 * y], 1).astype(np.float32)  # which standardization would blow up
    found = solve(torch.tensor(np.concatenate([x, dust], 1)), 3, of_classes(y), folds(y), device=CPU)
    assert found.weight[:, 6:].abs().max() == 0.0
    assert found.weight[:, 0].abs().max() > 0.0


def test_fits_that_end_before_the_optimum_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x, y = clusters(120, 20, scales=2.0)
    layers = FittedLayers(Axes(torch.tensor(x), centred=True), [np.arange(120)], 3, of_classes(y), bias=True)
    layers.fit(torch.tensor([0.1]), tolerance=TIGHT)
    assert layers.excess <= 1
    run = fit(model(), tmp_path / "whole")
    assert run.history[0]["converged"] is True
    assert "converged" not in run.metrics
    assert "iterations" not in caplog.text
    monkeypatch.setattr(fitted_layers, "ITERATIONS", 1)
    layers.fit(torch.tensor([1e-3]), tolerance=TIGHT)
    assert layers.excess > 1
    run = fit(model(), tmp_path / "short")
    assert run.history[0]["converged"] is False
    assert "the head is not at its optimum" in caplog.text
    assert "did not converge in" in caplog.text
