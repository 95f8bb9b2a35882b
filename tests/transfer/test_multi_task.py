"""Several tasks in one model: how they are drawn, weighted and combined, and that one helps another."""

from __future__ import annotations

import math
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.transfer.cases import TASKS, plain_tasks, projected, two_tasks
from zoo.data.open import open_data
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.loading.batches import StepBatches
from zoo.engine.loading.stream import Source
from zoo.engine.options.resolve import resolve
from zoo.errors import MissingExtraError, OptionError
from zoo.transfer import MultiTask
from zoo.transfer.task_gradients import combined, find_weighting, flat, gradients_of, gramian, step_seed, task_weights, with_gradients


def rows_by_task(**sampling: Any) -> list[list[list[int]]]:
    """Return the tasks of the samples of each batch, in two epochs: 40 samples have a kind, 10 a light."""
    pixels = np.zeros((50, 4, 4, 3), dtype=np.uint8)
    missing: list[Any] = [None]
    labels = {"kind": ["a", "b"] * 20 + missing * 10, "light": missing * 40 + [*map(float, range(10))]}
    table = open_data((pixels, labels), task="kind=single-label,light=regression")
    config = resolve("full", {"batch_size": 5, "seed": 0})
    batches = StepBatches({"train": Source(table, **sampling)}, config, Ranks(), lambda targets: targets)
    return [[[int(row >= 40) for row in batch] for step in batches.order(epoch) for batch in step] for epoch in (0, 1)]


def share(epochs: list[list[list[int]]]) -> float:
    return float(np.mean([task for batches in epochs for batch in batches for task in batch]))


def test_tasks_are_drawn_by_size_by_temperature_or_in_turn() -> None:
    by_size = rows_by_task()
    assert all(Counter(task for batch in batches for task in batch) == {0: 40, 1: 10} for batches in by_size)
    assert abs(share(rows_by_task(temperature=2.0)) - 1 / 3) < 0.12  # the roots of 40 and 10 are as 2 to 1
    assert abs(share(rows_by_task(temperature=math.inf)) - 1 / 2) < 0.12
    in_turn = [batch for batches in rows_by_task(in_turn=True) for batch in batches]
    assert [len(set(batch)) for batch in in_turn] == [1] * 20
    assert [batch[0] for batch in in_turn] == [0, 1] * 10
    assert {len(batch) for batch in in_turn} == {5}


def test_options_are_checked_at_once_and_before_anything_trains(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        MultiTask(weighting="uncertainy", sampling="sizes", task_weights={"kind": 0}, temperature=0.5)
    for part in ("did you mean 'uncertainty'", "did you mean 'size'", "task 'kind' is 0", "at least 1"):
        assert part in str(caught.value)
    with pytest.raises(OptionError, match="the weights are learned"):
        MultiTask(weighting="uncertainty", task_weights={"kind": 2})
    with pytest.raises(OptionError, match="no gradients to combine"):
        MultiTask(weighting="pcgrad", sampling="round-robin")
    with pytest.raises(OptionError, match="did you mean 'light'"):
        two_tasks().fit(*TASKS, objective=MultiTask(task_weights={"ligth": 2}), out=tmp_path / "a", quiet=True)


def test_surgery_without_its_package_is_refused_by_the_name_of_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.util.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"weighting='pcgrad' needs torchjd: .*the extra 'multitask'"):
        MultiTask(weighting="pcgrad")


def test_weights_of_tasks_multiply_their_losses(tmp_path: Path) -> None:
    told = {}
    for name, weights in {"plain": {}, "kind": {"kind": 3}, "both": {"kind": 3, "light": 3}}.items():
        run = two_tasks().fit(
            *TASKS, objective=MultiTask(task_weights=weights), recipe="full", lr=1e-12, epochs=1, out=tmp_path / name, quiet=True
        )
        told[name] = run.history[0]["train_loss"]
    assert told["both"] == pytest.approx(3 * told["plain"], rel=1e-4)
    assert told["plain"] < told["kind"] < told["both"]


def test_a_task_that_cannot_be_learned_gets_less_weight_by_uncertainty(tmp_path: Path) -> None:
    pixels, labels = TASKS[0]
    source = np.random.default_rng(0)
    noise = {**labels, "light": [None if value is None else float(source.normal()) for value in labels["light"]]}
    run = two_tasks().fit(
        (pixels, noise), TASKS[1], objective=MultiTask(weighting="uncertainty"), recipe="full", lr=0.02, epochs=15, out=tmp_path, quiet=True
    )
    last = run.history[-1]
    assert last["kind/weight"] > 1.2 > last["light/weight"]


def test_combined_gradients_do_not_go_against_a_task_where_their_sum_does() -> None:
    shared, head = torch.nn.Parameter(torch.tensor([1.0, 0.0])), torch.nn.Parameter(torch.tensor(2.0))
    losses = [shared @ torch.tensor([1.0, 0.2]) * head / 2, shared @ torch.tensor([-3.0, 0.2])]
    (first, to_head), (second, _) = gradients_of(losses, [shared, head])
    products = gramian(flat([[first], [second]]))
    assert float(first @ second) < 0
    weights = task_weights(products, projected, 0).tolist()
    found, of_head = combined([[first, to_head], [second, torch.zeros(())]], [weights, [1.0, 1.0]])
    assert float((first + second) @ first) < -1  # the plain sum
    assert float(found @ first) >= 0
    assert float(found @ second) >= 0
    expected = first - (first @ second) / (second @ second) * second + second - (first @ second) / (first @ first) * first
    assert torch.allclose(found, expected, atol=1e-6)
    value = with_gradients(losses[0] + losses[1], [shared, head], [found, of_head])
    assert value.item() == pytest.approx((losses[0] + losses[1]).item())
    gradients = torch.autograd.grad(value, [shared, head])
    assert torch.allclose(gradients[0], found)
    assert torch.allclose(gradients[1], to_head)


@pytest.mark.skipif(not find_spec("torchjd"), reason="torchjd is not installed")
@pytest.mark.parametrize("name", ["pcgrad", "mgda", "imtl-g", "aligned-mtl"])
def test_each_surgery_of_torchjd_runs_and_equals_its_aggregator(name: str, tmp_path: Path) -> None:
    from torchjd import aggregation  # type: ignore[import-not-found,unused-ignore]

    rows = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    weights = task_weights(gramian(rows), find_weighting(name), 3)
    kind = {"pcgrad": "PCGrad", "mgda": "MGDA", "imtl-g": "IMTLG", "aligned-mtl": "AlignedMTL"}[name]
    assert torch.allclose(weights @ rows, getattr(aggregation, kind)()(rows), atol=1e-4)
    run = two_tasks().fit(*TASKS, objective=MultiTask(weighting=name), recipe="full", epochs=2, out=tmp_path, quiet=True)
    assert math.isfinite(run.metrics["mean"])


def striped(count: int, seed: int) -> tuple[Any, Any]:
    """Return noisy stripes, and whether they stand or lie."""
    source = np.random.default_rng(seed)
    upright = np.arange(count) % 2
    pixels = source.normal(128, 30, (count, 16, 16, 3))
    for image, stands in zip(pixels, upright, strict=True):
        wave = 20 * np.sin(2 * np.pi * (np.arange(16) / 4 + source.random()))
        image += wave[None, :, None] if stands else wave[:, None, None]
    return pixels.clip(0, 255).astype(np.uint8), upright


@pytest.mark.parametrize(("related", "least", "most"), [(True, 0.9, 1.0), (False, 0.0, 0.75)])
def test_a_task_with_few_labels_learns_from_a_related_one_and_not_from_noise(
    related: bool, least: float, most: float, tmp_path: Path
) -> None:
    (pixels, upright), (unseen, truth) = striped(128, 0), striped(100, 50)
    other = upright if related else np.random.default_rng(9).permutation(upright)
    labels = {
        "kind": [("a", "b")[up] if row < 6 else None for row, up in enumerate(upright)],
        "other": [None if row < 6 else ("x", "y")[up] for row, up in enumerate(other)],
    }
    net = plain_tasks({"kind": ["a", "b"], "other": ["x", "y"]})
    net.fit((pixels, labels), False, recipe="full", epochs=8, lr=1e-2, augment="none", objective=MultiTask(), out=tmp_path, quiet=True)
    found = net.evaluate({"kind": (unseen, [("a", "b")[up] for up in truth])})
    assert least <= found["kind/accuracy"] <= most


def test_gradients_that_are_not_finite_are_left_to_the_guard_of_the_step() -> None:
    def never(products: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a weighting cannot take a Gramian that is not finite")

    assert task_weights(gramian(torch.tensor([[1.0, float("nan")], [2.0, 1.0]])), never, 0).tolist() == [1.0, 1.0]


def test_draws_differ_between_steps_and_between_seeds_of_runs() -> None:
    def drawn(seed: int, step: int) -> float:
        return float(task_weights(torch.eye(2), lambda products: torch.rand(2), step_seed(seed, step))[0])

    assert len({drawn(seed, step) for seed in range(4) for step in range(4)}) == 16
    assert drawn(1, 2) == drawn(1, 2)
