"""Heads that are solved: they are optimal, as scikit-learn's are, and what cannot be solved is trained."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from tests.engine.tiny import difference, images, model, timeless, values
from zoo.data.splits.folds import folds_of
from zoo.data.table import Table
from zoo.engine.objective.class_weights import class_weights
from zoo.engine.options.recipe import Phase, Recipe
from zoo.engine.options.resolve import resolve
from zoo.engine.runtime.memory_profile import footprint
from zoo.engine.solved import axes, head_solver, penalties
from zoo.engine.solved.head_solver import WITHOUT_FOLDS, held_out_logits, peak_bytes, solve
from zoo.engine.solved.solved_head import solved_head
from zoo.errors import TrainingError
from zoo.tasks.find import find_task

CPU = torch.device("cpu")
CLASSIC: dict[str, Any] = {
    "l1_ratios": (0.0,),
    "use_legacy_attributes": False,
    "scoring": "accuracy",
}  # without them newer versions warn of changing defaults


def clusters(samples: int, dim: int, classes: int = 3, *, spread: float = 3.0, scales: float = 100.0, seed: int = 0) -> tuple[Any, Any]:
    """Return overlapping normal clusters, features of scales from ``1 / scales`` to ``scales``, one of them constant."""
    source = np.random.default_rng(seed)
    y = np.arange(samples) % classes
    x = source.normal(size=(classes, dim))[y] + spread * source.normal(size=(samples, dim))
    x *= np.geomspace(1 / scales, scales, dim)
    x[:, 1] = 5.0
    return x.astype(np.float32), y


def scaled(x: Any, by: Any) -> Any:
    """Return features centred and divided by the root of their deviation, as those of ``by`` are; the constant one as zeros."""
    std = by.std(0, dtype=np.float64)
    std[1] = np.inf
    return (x - by.mean(0)) / np.sqrt(std * np.sqrt((by.var(0, dtype=np.float64)).mean()))


def of_classes(y: Any) -> Any:
    targets = torch.tensor(y)

    def loss(logits: Tensor, rows: Any) -> Tensor:
        return functional.cross_entropy(logits, targets[torch.from_numpy(rows)], reduction="sum")

    return loss


def folds(y: Any, seed: int = 0) -> Any:
    return folds_of(Table(list(range(len(y))), y, tuple(map(str, range(int(y.max()) + 1)))), seed)


@pytest.mark.parametrize(("samples", "dim"), [(120, 10), (30, 60)], ids=["more samples", "more features"])
def test_the_optimum_is_that_of_logistic_regression(samples: int, dim: int) -> None:
    x, y = clusters(samples, dim)
    found = solve(torch.tensor(x), 3, of_classes(y), [], device=CPU)
    peer = LogisticRegression(C=1 / WITHOUT_FOLDS, max_iter=5000, tol=1e-8).fit(scaled(x, x), y)
    fresh, _ = clusters(50, dim, seed=1)
    mine = torch.softmax(torch.tensor(fresh) @ found.weight.T + found.bias, 1).numpy()
    assert np.abs(mine - peer.predict_proba(scaled(fresh, x))).max() < 5e-3


def test_the_optimum_of_a_squared_error_is_that_of_ridge_regression() -> None:
    x, _ = clusters(50, 8)
    y = (x / x.std(0).clip(0.1)) @ np.linspace(-1, 1, 8) + np.random.default_rng(2).normal(size=50)
    targets = torch.tensor(y, dtype=torch.float32)[:, None]

    def loss(logits: Tensor, rows: Any) -> Tensor:
        return functional.mse_loss(logits, targets[torch.from_numpy(rows)], reduction="sum")

    found = solve(torch.tensor(x), 1, loss, [], device=CPU)
    peer = Ridge(alpha=WITHOUT_FOLDS / 2).fit(scaled(x, x), y)
    assert np.abs((torch.tensor(x) @ found.weight.T + found.bias).numpy()[:, 0] - peer.predict(scaled(x, x))).max() < 2e-2


def test_without_a_bias_features_are_not_centred() -> None:
    x, y = clusters(60, 5)
    found = solve(torch.tensor(x), 3, of_classes(y), [], device=CPU, bias=False)
    assert found.bias is None
    logits = torch.tensor(x) @ found.weight.T
    assert float(of_classes(y)(logits, np.arange(60))) == pytest.approx(found.loss, rel=1e-3)
    assert found.loss < 60 * np.log(3)


def test_the_penalty_is_weaker_the_more_the_features_say() -> None:
    found = []
    for spread in (0.5, 3.0, 1e3):
        x, y = clusters(90, 20, spread=spread)
        found.append(solve(torch.tensor(x), 3, of_classes(y), folds(y), device=CPU).penalty)
    assert found[0] < found[1] < found[2] == penalties.PENALTIES[0]


def test_held_out_accuracy_is_at_least_that_of_scikit_learn() -> None:
    """Mean over ten draws, as single draws differ by several samples either way."""
    mine, peers = [], []
    for seed in range(10):
        x, y = clusters(1060, 30, seed=seed, spread=4.0, scales=2.0)
        part = folds(y[:60], seed)
        found = solve(torch.tensor(x[:60]), 3, of_classes(y[:60]), part, device=CPU)
        mine.append(((x[60:] @ found.weight.numpy().T + found.bias.numpy()).argmax(1) == y[60:]).mean())  # type: ignore[union-attr]
        peers.append(
            make_pipeline(StandardScaler(), LogisticRegressionCV(cv=part, max_iter=500, **CLASSIC))
            .fit(x[:60], y[:60])
            .score(x[60:], y[60:])
        )
    assert np.mean(mine) > np.mean(peers) - 0.005


def test_features_are_standardized_where_their_scales_hide_what_they_say() -> None:
    """Every fourth feature tells the classes apart, beside others whose deviations are up to 10,000 times larger."""
    source = np.random.default_rng(0)
    y = np.arange(1100) % 2
    x = source.normal(size=(1100, 40))
    x[:, ::4] += np.where(y, 0.5, -0.5)[:, None]
    scales = 10 ** source.uniform(-2, 2, 40)
    found = [solve(torch.tensor(part[:100]), 2, of_classes(y[:100]), folds(y[:100]), device=CPU) for part in (x, x * scales)]
    assert [one.standardized for one in found] == [False, True]
    given = torch.tensor((x * scales)[:100])
    found.append(solve(given, 2, of_classes(y[:100]), [], device=CPU, penalty=found[1].penalty, standardized=True))
    chosen = [
        (part[100:] @ one.weight.numpy().T + one.bias.numpy()).argmax(1)  # type: ignore[union-attr]
        for part, one in zip((x, x * scales, x * scales), found, strict=True)
    ]
    assert (chosen[1] == y[100:]).mean() > (chosen[0] == y[100:]).mean() - 0.05
    assert (chosen[2] == chosen[1]).mean() > 0.97  # the same up to the tolerance


@pytest.mark.parametrize(("samples", "dim", "classes"), [(8_000, 64, 5), (1_000, 200, 40), (200, 1_000, 5)])
def test_the_peak_of_memory_is_below_its_bound(samples: int, dim: int, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in ((axes, "BLOCK", 2**16), (head_solver, "BLOCK", 2**16), (penalties, "PENALTIES", (10.0, 1.0))):
        monkeypatch.setattr(module, name, value)
    x, y = clusters(samples, dim, classes)
    features = torch.tensor(x)
    with footprint(CPU) as measured:
        solve(features, classes, of_classes(y), folds(y)[:2], device=CPU)
    bound = peak_bytes(samples, dim, classes) - features.nbytes  # which were there before
    assert bound / 6 < measured.peak <= bound


def test_logits_of_held_out_samples_are_those_of_heads_that_never_saw_them() -> None:
    x, y = clusters(90, 6)
    parts = folds(y)[:4]
    found = solve(torch.tensor(x), 3, of_classes(y), parts, device=CPU, held_out=True)
    assert found.held_out is not None
    for train, held in parts:
        peer = LogisticRegression(C=1 / found.penalty, max_iter=5000, tol=1e-8).fit(scaled(x, x)[train], y[train])
        mine = torch.softmax(found.held_out[torch.from_numpy(held)], 1).numpy()
        assert np.abs(mine - peer.predict_proba(scaled(x, x)[held])).max() < 5e-2  # folds are solved less exactly
    unseen = sorted({*range(90)} - {row for _, held in parts for row in held})
    assert found.held_out[unseen].isnan().all()
    assert solve(torch.tensor(x), 3, of_classes(y), parts, device=CPU).held_out is None


def unequal(seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Return 64 samples of one class and 6 of two others, with their labels, and fresh samples with theirs."""
    x, y = clusters(240, 20, spread=2.0, scales=1.0, seed=seed)
    chosen = np.concatenate([np.flatnonzero(y == k)[:number] for k, number in enumerate((64, 6, 6))])
    fresh = np.setdiff1d(np.arange(240), chosen)
    return x[chosen], y[chosen], x[fresh], y[fresh]


def test_without_a_margin_rare_classes_are_found_more_often() -> None:
    x, y, fresh, truth = unequal()
    found = [solve(torch.tensor(x), 3, of_classes(y), folds(y), device=CPU, margin=margin) for margin in (1.0, 0.0)]
    assert found[1].penalty < found[0].penalty
    chosen = [(torch.tensor(fresh) @ each.weight.T + each.bias).argmax(1).numpy() for each in found]
    recall = [np.mean([(guessed[truth == k] == k).mean() for k in range(3)]) for guessed in chosen]
    assert recall[1] > recall[0] + 0.1


@pytest.mark.parametrize(("weights", "margin"), [(None, 0.0), ("balanced", 1.0)])
def test_a_run_has_no_margin_where_classes_are_unequal_and_not_weighted(weights: Any, margin: float, tmp_path: Path) -> None:
    rows = np.r_[np.arange(0, 60, 3), 1, 4, 7, 2, 5, 8]
    pixels, names = images(60)
    noise = np.random.default_rng(2).integers(0, 200, (26, 16, 16, 3)).astype(np.uint8)
    train = pixels[rows] // 16 + noise, [names[row] for row in rows]
    net = model()
    encoded = np.array([sorted(set(names)).index(name) for name in train[1]])
    features, task = torch.from_numpy(np.asarray(net.embed(list(train[0])))), find_task("single-label")
    assert penalties.margin_of(task, encoded) == 0.0
    assert penalties.margin_of(task, np.arange(9) % 3) == 1.0
    assert penalties.margin_of(task, encoded, weighted=True) == 1.0
    assert penalties.margin_of(find_task("regression"), np.arange(9.0)[:, None], weighted=True) == 0.0
    counted = class_weights(weights, task, encoded, tuple(sorted(set(names))))
    given: dict[str, Any] = {"outputs": 3, "bias": True, "device": CPU, "seed": 0, "poll": lambda: None}
    table = Table([*range(26)], encoded, tuple(sorted(set(names))))
    penalties_of = [solved_head(features, table, partial(task.loss, weights=counted), margin=each, **given).penalty for each in (1.0, 0.0)]
    assert penalties_of[0] > penalties_of[1]
    run = fit(net, tmp_path / "run", train, class_weights=weights, seed=0)
    assert run.history[0]["penalty"] == pytest.approx(penalties_of[margin == 0.0])


def test_each_label_has_the_penalty_that_it_would_have_alone() -> None:
    x, y = clusters(120, 12, spread=1.0, scales=2.0)
    chance = np.random.default_rng(0).random(120) < 0.2
    rows = np.stack([y == 0, chance], 1).astype(np.float32)
    parts = folds(y)

    def of_labels(rows: Any, by: str) -> Any:
        targets = torch.tensor(rows)
        add = (lambda values: values.sum()) if by == "sum" else (lambda values: values.sum(0))
        return lambda logits, at: add(functional.binary_cross_entropy_with_logits(logits, targets[torch.from_numpy(at)], reduction="none"))

    together = solve(torch.tensor(x), 2, of_labels(rows, "sum"), parts, device=CPU, by_output=of_labels(rows, "each"))
    alone = [solve(torch.tensor(x), 1, of_labels(rows[:, [k]], "sum"), parts, device=CPU) for k in range(2)]
    assert alone[1].penalty > 10 * alone[0].penalty
    assert together.penalty == pytest.approx((alone[0].penalty * alone[1].penalty) ** 0.5, rel=1e-6)
    for k, other in enumerate(alone):
        logits = [torch.tensor(x) @ found.weight.T + found.bias for found in (together, other)]
        assert float((logits[0][:, [k]] - logits[1]).abs().max()) < 0.05


def fit(net: Any, out: Path, train: Any = None, valid: Any = None, **options: Any) -> Any:
    given = {"recipe": "linear-probe", "quiet": True, "batch_size": 8, "augment": "none"} | options
    return net.fit(train or images(), images(12, seed=1) if valid is None else valid, out=out, **given)


def test_a_probe_is_solved_in_one_epoch_without_steps(tmp_path: Path) -> None:
    net = model()
    run = fit(net, tmp_path / "run")
    (record,) = run.history
    assert (record["phase"], record["epoch"], run.kept) == ("probe", 1, 1)
    assert "lr" not in record
    assert record["penalty"] > 0
    assert "penalty" not in run.metrics
    assert record["train_loss"] < np.log(3)
    trained = fit(model(), tmp_path / "trained", epochs=20, solve_head=False)
    assert len(trained.history) == 20
    assert run.metrics["loss"] <= trained.metrics["loss"] + 0.01


def test_tuning_starts_from_the_solved_head(tmp_path: Path) -> None:
    solved, tuned = model(), model()
    fit(solved, tmp_path / "solved")
    run = fit(tuned, tmp_path / "tuned", recipe="lp-ft", epochs=3, lr=1e-12)
    assert [record["phase"] for record in run.history] == ["probe", "full", "full"]
    assert torch.allclose(tuned.head.linear.weight, solved.head.linear.weight, atol=1e-6)


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("mlp", {}),
        ("linear", {"views": 2, "augment": "light"}),
        ("linear", {"balanced_sampling": True}),
        ("linear", {"ema": 0.9}),
        ("linear", {"dropout": 0.2}),
        ("linear", {"loss": "focal"}),
        ("linear", {"loss": lambda logits, targets: functional.cross_entropy(logits, targets, reduction="none")}),
        ("linear", {"lr": 1e-3}),
        ("linear", {"optimizer": "sgd"}),
        ("linear", {"cache": False}),
    ],
    ids=["mlp", "views", "balanced", "ema", "dropout", "focal", "own loss", "lr", "optimizer", "no cache"],
)
def test_what_is_about_steps_is_trained(head: str, options: dict[str, Any], tmp_path: Path) -> None:
    net = model(head=head)
    assert len(fit(net, tmp_path / "run", epochs=2, **options).history) == 2


def test_a_phase_of_ones_own_is_trained_unless_it_says_solve(tmp_path: Path) -> None:
    for solve_it, expected in ((False, 2), (True, 1)):
        recipe = Recipe(name="mine", phases=(Phase(name="head", frozen="all", augment=False, solve=solve_it),), epochs=2)
        assert len(fit(model(), tmp_path / str(solve_it), recipe=recipe).history) == expected


def test_epochs_that_have_no_effect_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fit(model(), tmp_path / "run", epochs=7)
    assert "epochs=7 has no effect: the head is solved in one; solve_head=False trains it" in caplog.text


def test_class_weights_and_smoothing_change_the_optimum(tmp_path: Path) -> None:
    pixels, labels = images(30)
    rows = [i for i, label in enumerate(labels) if label != "red" or i < 6]
    found = []
    for name, options in {"plain": {}, "weights": {"class_weights": "balanced"}, "smooth": {"label_smoothing": 0.3}}.items():
        net = model()
        fit(net, tmp_path / name, (pixels[rows], [labels[i] for i in rows]), False, **options)
        found.append(values(net.head))
    assert difference(found[0], found[1]) > 1e-3
    assert difference(found[0], found[2]) > 1e-3


def test_several_labels_with_missing_ones_are_solved(tmp_path: Path) -> None:
    pixels, labels = images(30)
    rows = np.array([[float(label == name) for name in ("blue", "green", "red")] for label in labels], dtype=np.float32)
    rows[::4, 0] = np.nan
    net = model(task="multi-label", labels=("blue", "green", "red"))
    run = fit(net, tmp_path / "run", (pixels, rows), (pixels[:12], rows[:12]))
    assert len(run.history) == 1
    assert run.metrics["map"] > 0.9


def test_numbers_are_solved_in_their_own_unit(tmp_path: Path) -> None:
    pixels, labels = images(30)
    numbers = np.array([1000.0 + 50 * ("blue", "green", "red").index(label) for label in labels], dtype=np.float32)
    net = model(1, task="regression")
    run = fit(net, tmp_path / "run", (pixels, numbers), (pixels[:12], numbers[:12]))
    assert len(run.history) == 1
    assert run.metrics["r2"] > 0.8
    assert abs(float(np.mean(net.predict(pixels[:12]))) - 1050) < 20


def test_one_sample_per_class_takes_the_usual_penalty_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run = fit(model(), tmp_path / "run", images(3), False)
    assert run.history[0]["penalty"] == WITHOUT_FOLDS
    assert "no samples could be held out with every class on both sides" in caplog.text


def test_features_that_are_not_finite_name_their_samples(tmp_path: Path) -> None:
    net = model()
    with torch.no_grad():
        next(net.backbone.parameters()).fill_(float("nan"))
    before = values(net.head)
    with pytest.raises(TrainingError, match="features of 24 samples are not finite"):
        fit(net, tmp_path / "run")
    assert difference(before, values(net.head)) == 0.0


@pytest.mark.parametrize(("factor", "warned"), [(1.0, False), (1e4, True)])
def test_a_sample_with_far_larger_features_is_named(factor: float, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    x, y = clusters(30, 6)
    x[7] *= factor
    table = Table([f"image {row}" for row in range(30)], y, ("a", "b", "c"))
    options: dict[str, Any] = {"outputs": 3, "bias": True, "device": CPU, "seed": 0, "poll": lambda: None}
    solved_head(torch.tensor(x), table, functional.cross_entropy, **options)
    assert ("features of 1 sample are more than 100 times" in caplog.text) == ("image 7" in caplog.text) == warned


def test_equal_runs_give_equal_bits_and_a_resumed_one_too(tmp_path: Path) -> None:
    options = {"recipe": "lp-ft", "epochs": 3, "keep_checkpoints": True}
    one, two, three = model(), model(), model()
    run = fit(one, tmp_path / "one", **options)
    fit(two, tmp_path / "two", **options)
    again = fit(three, tmp_path / "one", resume=True, **options)
    assert difference(values(one), values(two)) == difference(values(one), values(three)) == 0.0
    assert timeless(again.history) == timeless(run.history)


def test_configurations_say_whether_heads_are_solved() -> None:
    assert resolve("linear-probe", {}).solve_head
    assert resolve("linear-probe", {"epochs": 5}).solve_head
    assert not resolve("linear-probe", {"schedule": "linear"}).solve_head
    assert resolve("lp-ft", {"schedule": "linear"}).solve_head


def test_held_out_logits_are_of_samples_that_no_layer_was_fitted_on() -> None:
    features = torch.randn(60, 200, generator=torch.Generator().manual_seed(0))  # more features than samples: any labels can be learnt
    labels = np.arange(60) % 2
    folds = folds_of(Table(list(range(60)), labels, ("a", "b")), seed=0)
    folds[0] = (folds[0][0], folds[0][1][1:])
    logits, penalty = held_out_logits(features, 2, of_classes(labels), folds, device=CPU)
    known = logits.isfinite().all(1).numpy()
    assert known.sum() == 59
    assert (logits.argmax(1).numpy() == labels)[known].mean() < 0.7, "random labels cannot be predicted"
    assert penalty == solve(features, 2, of_classes(labels), folds, device=CPU).penalty
    informed = features + 2.0 * torch.from_numpy(labels)[:, None]
    logits, _ = held_out_logits(informed, 2, of_classes(labels), folds, device=CPU)
    assert (logits.argmax(1).numpy() == labels)[known].mean() > 0.9
