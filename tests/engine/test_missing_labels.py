"""Missing labels of a multi-label task count neither in the loss nor in a metric."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.tiny import images, model
from zoo.data.open import open_data
from zoo.engine.inference.confidence_intervals import weighted_metrics
from zoo.engine.inference.metrics import compute_metrics
from zoo.engine.loading.order import balancing_weights
from zoo.engine.objective.class_weights import class_weights
from zoo.errors import OptionError
from zoo.tasks.find import BUILTIN

NAN = float("nan")
TASK = BUILTIN["multi-label"]


def case(seed: int = 0) -> tuple[Any, Any, Any]:
    source = np.random.default_rng(seed)
    targets = (source.random((40, 3)) < 0.4).astype(np.float32)
    known = source.random((40, 3)) < 0.7
    return source.normal(size=(40, 3)), targets, known


@pytest.mark.parametrize("name", list(TASK.losses))
def test_what_stands_at_a_missing_label_changes_neither_loss_nor_gradient(name: str) -> None:
    logits, targets, known = case()
    found = []
    for other in (0.0, 5.0):
        x = torch.tensor(np.where(known, logits, other), requires_grad=True)
        loss = TASK.losses[name](x, torch.tensor(np.where(known, targets, np.nan)), smoothing=0.1, weights=torch.tensor([1.0, 2.0, 3.0]))
        loss.backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        assert not x.grad[~torch.tensor(known)].any()
        found.append(float(loss.detach()))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", list(TASK.losses))
def test_the_loss_is_that_of_the_known_labels_alone(name: str) -> None:
    logits, targets, known = case()
    loss = TASK.losses[name]
    whole = loss(torch.tensor(logits), torch.tensor(np.where(known, targets, np.nan)))
    single = [loss(torch.tensor(logits[[row]][:, [k]]), torch.tensor(targets[[row]][:, [k]])) for row, k in np.argwhere(known)]
    assert float(whole) == pytest.approx(float(sum(single)))
    assert float(TASK.weight(torch.tensor(np.where(known, targets, np.nan)))) == known.sum()


def test_metrics_are_those_of_the_known_rows_of_each_label() -> None:
    logits, targets, known = case()
    found = compute_metrics(TASK, logits, np.where(known, targets, np.nan))
    each = [compute_metrics(TASK, logits[rows][:, [k]], targets[rows][:, [k]]) for k, rows in enumerate(known.T)]
    for name in ("map", "auroc", "macro_f1"):
        assert found[name] == pytest.approx(np.mean([one[name] for one in each]))
    assert found["loss"] == pytest.approx(sum(one["loss"] * rows.sum() for one, rows in zip(each, known.T, strict=True)) / known.sum())
    weighted = weighted_metrics("multi-label", logits, np.where(known, targets, np.nan), np.ones((1, 40)))
    assert {name: float(value[0]) for name, value in weighted.items()} == pytest.approx(found)


def test_a_label_without_a_known_value_is_in_no_metric() -> None:
    logits, targets, _ = case()
    gone = targets.copy()
    gone[:, 1] = NAN
    rest = compute_metrics(TASK, logits[:, [0, 2]], targets[:, [0, 2]])
    assert compute_metrics(TASK, logits, gone) == pytest.approx(rest)
    weighted = weighted_metrics("multi-label", logits, gone, np.ones((1, 40)))
    assert {name: float(value[0]) for name, value in weighted.items()} == pytest.approx(rest)
    assert compute_metrics(TASK, logits, np.full_like(targets, NAN)) == {}


def test_weights_count_the_known_labels() -> None:
    targets = np.array([[1, NAN], [1, 1], [0, 0], [NAN, 0]])
    assert class_weights("balanced", TASK, targets, ("a", "b")).tolist() == [0.5, 2.0]  # type: ignore[union-attr]
    assert np.isfinite(balancing_weights(targets)).all()


def labelled(count: int = 24) -> tuple[Any, Any]:
    pixels, names = images(count)
    labels = [[float(name == other) for other in ("blue", "green", "red")] for name in names]
    for row in range(0, count, 4):
        labels[row][(row // 4) % 3] = NAN
    return pixels, labels


def test_a_run_with_missing_labels_learns_and_records_them(tmp_path: Path) -> None:
    data = labelled()
    run = model(3, task="multi-label").fit(data, data, epochs=8, lr=1e-2, recipe="full", mixup=0.2, out=tmp_path / "run", quiet=True)
    assert run.metrics["map"] > run.history[0]["map"]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["train"]["missing_labels"] == {"0": 2, "1": 2, "2": 2}
    assert all(np.isfinite(line["train_loss"]) for line in run.history)


def test_an_own_loss_sees_the_mask_if_it_takes_it_and_is_refused_if_not(tmp_path: Path) -> None:
    data = labelled()
    seen: list[torch.Tensor] = []

    def masked(logits: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append(mask)
        assert torch.isfinite(targets).all()
        return (torch.nn.functional.softplus(logits * (1 - 2 * targets)) * mask).sum(1)

    model(3, task="multi-label").fit(data, data, epochs=1, recipe="full", loss=masked, out=tmp_path / "run", quiet=True)
    assert any(not mask.all() for mask in seen)
    plain = torch.nn.BCEWithLogitsLoss(reduction="none")
    with pytest.raises(OptionError, match=r"loss: 12 labels are missing.*loss\(logits, targets, mask\)"):
        model(3, task="multi-label").fit(data, data, epochs=1, loss=plain, out=tmp_path / "other", quiet=True)


def test_uncertain_is_for_several_labels_only(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"uncertain: it is for labels of -1"):
        model(3).fit(images(), uncertain="mask", out=tmp_path / "run", quiet=True)
    with pytest.raises(OptionError, match=r"uncertain: it is for labels of -1 .* is single-label"):
        model(3).evaluate(images(), uncertain="mask")
    with pytest.raises(OptionError, match=r"'msk' \(did you mean 'mask'\?\)"):
        open_data(images(), task="multi-label", uncertain="msk")
    pixels, labels = labelled()
    labels[1][0] = -1
    net = model(3, task="multi-label", labels=["blue", "green", "red"])
    assert "map" in net.evaluate((pixels, labels), uncertain="mask")
    with pytest.raises(OptionError, match="'mask' or 'positive' or 'negative'"):
        net.evaluate((pixels, labels), uncertain="ignore")
