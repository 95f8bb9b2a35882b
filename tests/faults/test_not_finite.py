"""T6: what is not finite stops a run before it touches anything, and the samples are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.tiny import difference, images, model, values
from zoo.data.dataset import not_finite
from zoo.data.images import transforms
from zoo.data.images.augment import Augment
from zoo.data.images.transforms import train_transform
from zoo.data.open import open_data
from zoo.data.table import Table
from zoo.engine.inference.metrics import compute_metrics
from zoo.engine.rundir.checkpoint import read_newest
from zoo.errors import CorruptInputError, DataError, TrainingError

NUMBERS = [float("nan"), float("inf"), float("-inf"), 1e300]


def pixels(number: float, at: tuple[int, ...] = (5,)) -> tuple[list[torch.Tensor], list[str]]:
    """Prepared tensors, double precision, of which some have one wrong value."""
    inputs = [torch.full((3, 16, 16), index / 12, dtype=torch.float64) for index in range(12)]
    for index in at:
        inputs[index][1, 2, 3] = number
    return inputs, ["a", "b"] * 6


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("recipe", ["full", "linear-probe"])
def test_t6_a_pixel_that_is_not_finite_stops_before_forward(recipe: str, number: float, workers: int, tmp_path: Path) -> None:
    net = model(2)
    before, forwards = values(net), [0]
    net.backbone.register_forward_hook(lambda *_: forwards.__setitem__(0, forwards[0] + 1))
    with pytest.raises(CorruptInputError, match=r"sample 5\b.* not finite"):
        net.fit(pixels(number), valid=False, recipe=recipe, batch_size=12, workers=workers, out=tmp_path / "run", quiet=True, epochs=1)
    assert difference(before, values(net)) == 0.0
    assert forwards == [0]


def test_t6_what_a_transform_makes_of_good_pixels_is_looked_at_too_and_all_samples_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def divides_by_zero(image: Any, *rest: Any) -> Any:
        x = torch.full((3, 16, 16), 0.5)
        return x / 0 if image.size == (17, 16) else x

    monkeypatch.setattr(transforms.EvalTransform, "__call__", lambda self, source, rng: divides_by_zero(transforms.decode(source)))
    inputs = [np.zeros((16, 17 if index in (3, 8) else 16, 3), dtype=np.uint8) for index in range(12)]
    net = model(2)
    before = values(net)
    with pytest.raises(CorruptInputError, match=r"2 samples: \d \(row \d\), \d \(row \d\)") as caught:
        net.fit((inputs, ["a", "b"] * 6), valid=False, recipe="full", augment="none", batch_size=12, out=tmp_path, quiet=True)
    assert {"3 (row 3)", "8 (row 8)"} <= set(str(caught.value).partition(": ")[2].partition(" of ")[0].split(", "))
    assert difference(before, values(net)) == 0.0


@pytest.mark.parametrize("number", NUMBERS)
def test_t6_a_target_that_is_not_finite_is_refused_with_its_row(number: float, tmp_path: Path) -> None:
    targets = np.arange(12.0)
    targets[7] = number
    net = model(1, task="regression")
    with pytest.raises(DataError, match=r"row 7"):
        net.fit((images(12)[0], targets), valid=False, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_t6_values_so_large_that_their_sum_overflows_are_finite() -> None:
    assert not_finite(torch.full((2, 3), 3e38)) == []
    assert not_finite(torch.tensor([[1.0, float("inf")], [0.0, 0.0], [float("nan"), 1.0]])) == [0, 2]
    assert not_finite(torch.tensor([1, 2])) == []


@pytest.mark.parametrize("lr", [1e20, 1e30])
def test_t6_a_rate_that_explodes_leaves_parameters_statistics_and_checkpoint_finite(lr: float, tmp_path: Path) -> None:
    net = model()
    options: dict[str, Any] = {"recipe": "full", "augment": "none", "warmup": 0.0, "batch_size": 4, "epochs": 2, "ema": 0.9}
    with pytest.raises(TrainingError, match=r"not finite in epoch .*samples \d+ \(row \d+\)[\s\S]*lr"):
        net.fit(images(24), images(12), lr=lr, out=tmp_path / "run", quiet=True, **options)
    assert all(bool(torch.isfinite(value).all()) for value in values(net).values())
    found = read_newest(tmp_path / "run/checkpoint")
    assert found is None or all(torch.isfinite(x).all() for part in found[0].tensors.values() for x in part.values())


class Explodes(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # one gradient
        return gradient * float("nan")


def test_t6_a_gradient_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    net, forwards = model(), [0]

    def from_the_fourth(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        forwards[0] += module.training
        if forwards[0] == 4 and module.training:
            seen.append(values(net))
            return Explodes.apply(output)  # type: ignore[no-any-return, no-untyped-call]  # torch has no types here
        return output

    seen: list[dict[str, torch.Tensor]] = []
    net.backbone.register_forward_hook(from_the_fourth)
    with pytest.raises(TrainingError, match=r"gradient is not finite in epoch 2 .*step 1 of 3"):
        net.fit(images(24), valid=False, recipe="full", batch_size=8, epochs=3, out=tmp_path / "run", quiet=True, augment="none")
    parameters = dict(net.named_parameters())
    assert all(torch.equal(parameters[name], seen[0][name]) for name in parameters)
    assert all(bool(torch.isfinite(value).all()) for value in values(net).values())


def test_t6_a_metric_that_is_not_finite_does_not_stop_and_is_never_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.engine.objective import supervised

    epochs = [0]

    def second_is_nan(*arguments: Any) -> dict[str, float]:
        epochs[0] += 1
        told = compute_metrics(*arguments)
        return told | ({"accuracy": float("nan")} if epochs[0] == 2 else {})

    monkeypatch.setattr(supervised, "compute_metrics", second_is_nan)
    run = model().fit(images(24), images(12, seed=1), recipe="full", batch_size=8, epochs=3, out=tmp_path / "run", quiet=True)
    assert run.kept != 2
    second = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[1])
    assert np.isnan(second["accuracy"])


def test_t6_prediction_and_evaluation_name_the_sample_too() -> None:
    inputs, labels = pixels(1e300, at=(5, 7))
    table = open_data((inputs, labels))
    net = model(2, labels=("a", "b"))
    for ask in (
        lambda: net.predict(inputs),
        lambda: net.embed(inputs),
        lambda: net.evaluate(Table(table.inputs, table.targets, table.classes)),
    ):
        with pytest.raises(CorruptInputError, match=r"5 \(row 5\), 7 \(row 7\)"):
            ask()


def test_t6_augmentation_of_finite_pixels_stays_finite() -> None:
    import random

    from zoo.declare import Image

    transform = train_transform(Image(size=16), Augment(scale=(0.1, 1.0), jitter=1.0, rand_augment=30, erase=1.0))
    pictures = [np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)]
    found = torch.stack([transform(picture, random.Random(seed)) for picture in pictures for seed in range(50)])
    assert not_finite(found) == []
