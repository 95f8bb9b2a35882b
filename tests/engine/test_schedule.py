from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from tests.engine.test_resume import tables
from tests.engine.tiny import model
from zoo.engine.optim.lr_schedule import Plateau, rate
from zoo.engine.options.model_selection import Best
from zoo.engine.options.recipe import SCHEDULES
from zoo.errors import OptionError


def factors(schedule: str, total: int = 100, warmup: float = 0.0) -> list[float]:
    return [rate(step, total, warmup, schedule) for step in range(total)]


def of_torch(make: Callable[[torch.optim.Optimizer], Any], total: int) -> list[float]:
    """The factors of one of torch's schedulers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, result = make(optimizer), []
    for _ in range(total):
        result.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if len(result) < total:
            scheduler.step()
    return result


@pytest.mark.parametrize(("total", "warmup"), [(100, 0.1), (7, 0.3), (1, 0.0), (33, 0.0)])
def test_the_cosine_is_to_the_last_bit_what_it_always_was(total: int, warmup: float) -> None:
    rising = round(total * warmup)
    for step in range(total):
        expected = (step + 1) / (rising + 1) if step < rising else 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
        assert rate(step, total, warmup) == rate(step, total, warmup, "cosine") == expected


@pytest.mark.parametrize(("total", "warmup"), [(100, 0.3), (57, 0.25), (1000, 0.1), (10, 0.5), (2, 0.9)])
def test_one_cycle_is_torchs(total: int, warmup: float) -> None:
    def make(optimizer: torch.optim.Optimizer) -> Any:
        return lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=total, pct_start=warmup, cycle_momentum=False)

    assert factors("one-cycle", total, warmup) == pytest.approx(of_torch(make, total), abs=1e-12)


def test_linear_and_step_are_torchs() -> None:
    straight = of_torch(lambda optimizer: lr_scheduler.PolynomialLR(optimizer, total_iters=80, power=1.0), 80)
    assert factors("linear", 80) == pytest.approx(straight)
    falling = of_torch(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, milestones=[40, 60], gamma=0.1), 80)
    assert factors("step", 80) == pytest.approx(falling)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_constant_and_plateau_stay_where_the_warm_up_ends(schedule: str) -> None:
    assert factors(schedule, 10, 0.2) == [1 / 3, 2 / 3, *[1.0] * 8]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_of_the_recipes_stays_above_zero_and_reaches_one(schedule: str) -> None:
    for total in (*range(1, 30), 1000):
        for warmup in (0.0, 0.1, 0.5, 0.99):
            result = factors(schedule, total, warmup)
            assert all(0 < factor <= 1 + 1e-12 for factor in result), (total, warmup)
        assert max(factors(schedule, total, 0.1)) > 0.9


@pytest.mark.parametrize("schedule", ["cosine", "linear", "one-cycle", "step"])
def test_what_falls_falls_after_its_peak_and_ends_low(schedule: str) -> None:
    result = factors(schedule, 100, 0.2)
    peak = result.index(max(result))
    assert peak <= 20
    assert result[peak:] == sorted(result[peak:], reverse=True)
    assert result[-1] <= 0.02


def test_an_unknown_schedule_is_told_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="one-cycle"):
        rate(0, 10, 0.0, "onecycle")


def test_a_plateau_falls_as_torchs_does() -> None:
    losses = [1.0, 0.9, 0.95, 0.96, 0.97, 0.99, 0.8, 0.85, 0.79, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=2, threshold=0.0)  # falls after patience + 1 epochs
    ours, best = Plateau(), math.inf
    for loss in losses:
        theirs.step(loss)
        ours.update(loss < best)
        best = min(best, loss)
        assert ours.factor == pytest.approx(optimizer.param_groups[0]["lr"])
    assert ours.factor == pytest.approx(0.3**3)


def test_a_plateau_never_falls_to_zero() -> None:
    plateau = Plateau(patience=1)
    for _ in range(50):
        plateau.update(better=False)
    assert plateau.factor == plateau.lowest > 0


def test_a_plateau_goes_on_where_it_was() -> None:
    one, other = Plateau(), Plateau()
    for better in (True, False, False, False, False):
        one.update(better)
    other.load_state_dict(one.state_dict())
    assert other == one
    assert other.waited == 1


def test_the_rate_of_a_run_falls_where_its_metric_waits(tmp_path: Path) -> None:
    options: dict[str, Any] = {"recipe": "full", "epochs": 12, "batch_size": 8, "lr": 1.0, "warmup": 0.0, "augment": "none"}
    history = model().fit(*tables(), out=tmp_path, schedule="plateau", quiet=True, **options).history
    best, plateau = Best("accuracy"), Plateau()
    for record in history:
        assert record["lr"] == pytest.approx(1.0 * plateau.factor)
        plateau.update(best.update(record["epoch"], record))
    assert history[-1]["lr"] < history[0]["lr"]


def test_the_history_has_the_rate_that_was_meant(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "schedule": "constant", "augment": "none"}
    history = model().fit(*tables(), out=tmp_path, quiet=True, **options).history
    assert str(history[-1]["lr"]) == "0.0003"  # 0.003 * 0.1 has one bit more
