"""The range test: what it measures, what it suggests, and that it leaves nothing behind."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.engine.tiny import NAMES, difference, images, model, values
from zoo.engine.optim.lr_finder import HIGH, LOW, SMOOTHING, STEPS, RangeCurve, draw_range, range_test, suggest
from zoo.engine.optim.nonfinite import NonFiniteError
from zoo.engine.optim.optimizer import build_optimizer
from zoo.engine.optim.optimizer_state import optimizer_tensors
from zoo.engine.options.resolve import resolve
from zoo.errors import TrainingError

CPU = torch.device("cpu")


def built(net: nn.Module, name: str = "adamw", **options: Any) -> torch.optim.Optimizer:
    return build_optimizer(net, resolve("full", {"optimizer": name, "optimizer_options": options}), CPU)  # type: ignore[arg-type]


def data(seed: int = 0) -> tuple[Tensor, Tensor]:
    pixels, names = images(48, seed)
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.45) / 0.22, torch.tensor([NAMES.index(name) for name in names])


def steps_of(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 0) -> Callable[[float], float]:
    """Return a step on batches of the tiny images, one rate for all groups."""
    x, y = data()
    source = torch.Generator().manual_seed(seed)

    def step(lr: float) -> float:
        for group in optimizer.param_groups:
            group["lr"] = lr
        batch = torch.randint(len(y), (16,), generator=source)
        optimizer.zero_grad()
        loss = cross_entropy(net(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def curve_of(losses: Callable[[float], float], **options: Any) -> RangeCurve:
    """Run the test on a loss that depends on nothing but the rate."""
    layer = nn.Linear(1, 1)
    return range_test(layer, torch.optim.SGD(layer.parameters(), lr=1.0), losses, **options)


def valley(rates: list[float], losses: list[float]) -> float:
    """The rule of fastai's ``valley``: the middle of the longest valley, by its number of steps."""
    lengths, start, end = [1] * len(losses), 0, 0
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[end] < lengths[i]:
                end, start = i, i - lengths[i]
    third = (end - start) / 3
    return rates[start + int(third) + int(third / 2)]


def basin(rate: float) -> float:
    """A loss that falls between 1e-4 and 1e-1 and explodes beyond."""
    return 2.0 - 0.25 * min(max(0.0, math.log10(rate / 1e-4)), 3.0) + max(0.0, rate - 0.1) * 20


# --- what it measures


def test_the_rates_rise_by_one_factor_from_low_to_high() -> None:
    given: list[float] = []
    curve = curve_of(lambda rate: given.append(rate) or 1 - math.log10(rate) / 10, low=1e-5, high=1e-1, steps=9)  # type: ignore[func-returns-value]
    assert list(curve.rates) == given == pytest.approx([10 ** (-5 + at / 2) for at in range(9)])
    defaults = curve_of(lambda rate: 1 - math.log10(rate) / 10).rates
    assert (len(defaults), defaults[0], defaults[-1]) == (STEPS, LOW, pytest.approx(HIGH))


def test_the_mean_has_no_bias_toward_zero() -> None:
    source = random.Random(0)
    curve = curve_of(lambda rate: 3 - rate + source.random(), steps=40)
    for at in range(40):
        weights = [SMOOTHING ** (at - before) for before in range(at + 1)]
        expected = sum(w * loss for w, loss in zip(weights, curve.losses, strict=False)) / sum(weights)
        assert curve.smoothed[at] == pytest.approx(expected)


def test_it_ends_where_the_loss_explodes() -> None:
    curve = curve_of(lambda rate: 1.0 - 1e3 * rate if rate < 1e-4 else 1e4)
    assert curve.smoothed[-1] > 4 * min(curve.smoothed)
    assert all(value <= 4 * min(curve.smoothed[: at + 1]) for at, value in enumerate(curve.smoothed[:-1]))
    assert len([rate for rate in curve.rates if rate >= 1e-4]) == 1


def raising(rate: float) -> float:
    raise NonFiniteError("loss", 3)


@pytest.mark.parametrize("end", [raising, lambda _: math.inf, lambda _: math.nan], ids=["raised", "inf", "nan"])
def test_it_ends_at_the_first_loss_that_is_not_finite_and_still_suggests(end: Callable[[float], float]) -> None:
    curve = curve_of(lambda rate: basin(rate) if rate < 0.1 else end(rate))
    assert [math.isfinite(loss) for loss in curve.losses] == [True] * (len(curve.losses) - 1) + [False]
    assert 1e-4 < curve.suggestion < 0.1
    plain = json.loads(json.dumps(curve.to_dict(), allow_nan=False))
    assert plain["losses"] == [*curve.losses[:-1], None]
    assert plain["smoothed"][-1] is None
    assert (plain["rates"], plain["suggestion"]) == (list(curve.rates), curve.suggestion)


# --- what it suggests


def test_the_suggestion_lies_in_the_middle_of_the_fall() -> None:
    curve = curve_of(basin)
    assert 1e-3 < curve.suggestion < 3e-2


def test_on_a_smooth_curve_it_is_the_valley_of_fastai() -> None:
    rates = [10 ** (-6 + at / 20) for at in range(100)]
    for low, high in ((-4.5, -2.0), (-5.0, -3.5), (-3.0, -1.2)):
        smoothed = [1 / (1 + math.exp(4 * (math.log10(rate) - (low + high) / 2))) + max(0.0, math.log10(rate) - high) * 3 for rate in rates]
        ours, theirs = suggest(rates, smoothed), valley(rates[10:], smoothed[10:])
        assert abs(math.log10(ours / theirs)) <= 0.16  # three of the steps between the rates: theirs rounds down twice


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_the_batches_does_not_move_it_far(seed: int) -> None:
    source = random.Random(seed)
    noisy = curve_of(lambda rate: basin(rate) + source.gauss(0, 0.1))
    assert abs(math.log10(noisy.suggestion / curve_of(basin).suggestion)) < 1


@pytest.mark.parametrize("curvature", [1.0, 100.0])
def test_on_a_quadratic_it_stays_below_the_rate_that_diverges_and_follows_the_curvature(curvature: float) -> None:
    layer = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)

    def step(lr: float) -> float:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        loss = curvature / 2 * layer.weight.square().sum()
        loss.backward()
        optimizer.step()
        return loss.item()

    curve = range_test(layer, optimizer, step)
    diverges = 2 / curvature
    assert diverges / 1000 < curve.suggestion < diverges / 2


def test_noise_alone_is_mostly_refused() -> None:
    refused = 0
    for seed in range(40):
        source = random.Random(seed)
        try:
            curve_of(lambda rate, source=source: 1 + source.gauss(0, 0.1))  # type: ignore[misc]
        except TrainingError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("losses", [lambda rate: 1.0, lambda rate: 1 + rate, lambda rate: math.nan], ids=["flat", "rising", "nan"])
def test_where_the_loss_falls_nowhere_it_says_so(losses: Callable[[float], float]) -> None:
    with pytest.raises(TrainingError, match=r"no fall of the loss between 1\.0e-06 .*give lr a number"):
        curve_of(losses)


@pytest.mark.parametrize(("name", "options"), [("adamw", {}), ("sgd", {"momentum": 0.9})], ids=["adamw", "sgd"])
def test_a_network_learns_at_the_rate_that_is_suggested_and_other_batches_suggest_about_the_same(
    name: str, options: dict[str, Any]
) -> None:
    found = []
    for seed in range(3):
        net = model(seed=seed).train()
        optimizer = built(net, name, **options)
        found.append(range_test(net, optimizer, steps_of(net, optimizer, seed)).suggestion)
    assert max(found) / min(found) < 10
    step = steps_of(net, optimizer)
    for _ in range(60):
        step(found[-1])
    x, y = data(seed=1)
    with torch.no_grad():
        assert float((net.eval()(x).argmax(1) == y).float().mean()) > 0.9


# --- that it leaves nothing behind


def snapshot(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return {
        "values": values(net),
        "gradients": gradients,
        "modes": [module.training for module in net.modules()],
        "state": {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()},
        "settings": json.dumps(settings),
        "random": (torch.get_rng_state(), random.getstate(), json.dumps(np.random.get_state(legacy=False), default=lambda a: a.tolist())),
    }


def assert_same(one: Any, other: Any) -> None:
    """Compare nested values, tensors to the last bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


def noisy(step: Callable[[float], float]) -> Callable[[float], float]:
    """Draw from every generator beside the step, as augmentations do."""

    def drawing(lr: float) -> float:
        random.random()
        np.random.random()  # the global state is what is tested
        return step(lr)

    return drawing


@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "with state"])
@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop"])
def test_everything_is_as_before(name: str, warm: bool) -> None:
    net = model().train()
    optimizer = built(net, name, **({"momentum": 0.9} if name == "sgd" else {}))
    net.freeze(1)
    step = noisy(steps_of(net, optimizer))
    if warm:
        for _ in range(3):
            step(1e-2)
    net.backbone.bn1.eval()
    before = snapshot(net, optimizer)
    curve = range_test(net, optimizer, step)
    assert len(curve.losses) > 10
    assert_same(snapshot(net, optimizer), before)


def test_training_goes_on_as_if_there_had_been_no_test() -> None:
    nets = [model(), model()]
    for at, net in enumerate(nets):
        optimizer = built(net, "sgd", momentum=0.9)
        step = steps_of(net.train(), optimizer)
        torch.manual_seed(0)
        for _ in range(2):
            step(1e-2)
        if at:
            range_test(net, optimizer, steps_of(net, optimizer, seed=5), steps=20, high=1e-2)
        for _ in range(3):
            step(1e-2)
    assert difference(values(nets[0]), values(nets[1])) == 0.0


def test_the_test_itself_trains() -> None:
    net = model().train()
    optimizer = built(net)
    start, step, moved = values(net), steps_of(net, optimizer), []

    def watched(lr: float) -> float:
        loss = step(lr)
        moved.append(difference(values(net), start))
        return loss

    range_test(net, optimizer, watched)
    assert min(moved) > 0
    assert difference(values(net), start) == 0.0


@pytest.mark.parametrize("error", [ValueError("a broken batch"), KeyboardInterrupt()], ids=["an error", "ctrl-c"])
def test_everything_is_as_before_also_where_the_test_is_cut_off(error: BaseException) -> None:
    net = model().train()
    optimizer = built(net)
    step, done = noisy(steps_of(net, optimizer)), 0

    def failing(lr: float) -> float:
        nonlocal done
        done += 1
        loss = step(lr)
        if done == 7:
            raise error
        return loss

    before = snapshot(net, optimizer)
    with pytest.raises(type(error)):
        range_test(net, optimizer, failing)
    assert done == 7
    assert_same(snapshot(net, optimizer), before)


# --- its picture


def test_the_picture_marks_the_suggestion(tmp_path: Path) -> None:
    curve = curve_of(lambda rate: basin(rate) if rate < 1 else math.inf)
    for name in ("range.png", "range.svg"):
        draw_range(curve, tmp_path / name)
    with Image.open(tmp_path / "range.png") as picture:
        assert picture.size == (720, 432)
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10
    assert f"suggestion: {curve.suggestion:.1e}" in (tmp_path / "range.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("losses", [(1.0, 0.9), (1.0, 2.0), (1.0, math.inf)], ids=str)
def test_a_curve_of_any_shape_can_be_drawn(losses: tuple[float, ...], tmp_path: Path) -> None:
    rates = tuple(10.0 ** (at - 5) for at in range(len(losses)))
    draw_range(RangeCurve(rates, losses, losses, 1e-4), tmp_path / "range.png")
    assert (tmp_path / "range.png").stat().st_size > 1000
