"""The choice among candidates, as pure functions."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from zoo.engine.options.recipes import RECIPES
from zoo.errors import OptionError
from zoo.select.recipe_search.candidates import candidates
from zoo.select.recipe_search.halving import Result, best_runs, choose, from_record, lengths_of, seconds_of, survivors, to_record


def result(name: str, score: float, draws: tuple[float, ...] | None = None, **more: Any) -> Result:
    fields = {
        "recipe": name,
        "epochs": 1,
        "whole": True,
        "low": None,
        "high": None,
        "seconds": 1.0,
        "memory": 1,
        "trained": 1,
        "folder": "",
    }
    return Result(name=name, score=score, draws=draws, **(fields | more))


@pytest.mark.parametrize(
    ("budget", "seconds"), [(None, None), (90, 90), ("90s", 90), ("10min", 600), ("1.5 h", 5400), ("2m", 120), ("7", 7)]
)
def test_a_budget_is_read_in_seconds(budget: Any, seconds: float | None) -> None:
    assert seconds_of(budget) == seconds


@pytest.mark.parametrize("budget", ["", "ten", "10 days", 0, -1, True, math.inf, math.nan, "0s", [1]])
def test_a_budget_that_is_no_duration_is_refused(budget: Any) -> None:
    with pytest.raises(OptionError, match="10min"):
        seconds_of(budget)


def test_rounds_grow_and_keep_what_is_fixed() -> None:
    assert lengths_of(11, 1) == (3, 6, 11)
    assert lengths_of(4, 1) == (2, 3, 4)
    assert lengths_of(2, 1) == (2,)
    assert lengths_of(1, 1) == (1,)


def test_the_better_half_goes_on_and_an_undefined_score_is_the_worst() -> None:
    field = [result("a", 0.5), result("b", math.nan), result("c", 0.9), result("d", 0.7)]
    assert [one.name for one in survivors(field, lower=False)] == ["c", "d"]
    assert [one.name for one in survivors(field, lower=True)] == ["a", "d"]
    assert survivors([], lower=False) == []


def test_of_candidates_that_kept_the_same_head_the_better_tuned_one_goes_on_and_the_reason_says_so() -> None:
    probe = result("probe", 0.8, (0.8, 0.8))
    field = [result("top", 0.8, (0.8, 0.8), tuned=0.7), result("half", 0.8, (0.8, 0.8), tuned=0.78), result("lora", 0.8, (0.8, 0.8))]
    assert [one.name for one in survivors(field, lower=False)] == ["half", "top"]
    assert [one.name for one in survivors(field, lower=True)] == ["top", "half"]
    kept = choose([probe, *field], "accuracy", lower=False)
    assert kept.result is probe
    assert "no epoch of tuning is better than it; the best of them, of half, has accuracy 0.7800 against 0.8000" in kept.reason
    assert from_record(json.loads(json.dumps(to_record(field[1])))) == field[1]


def test_of_several_runs_of_a_candidate_the_best_counts() -> None:
    runs = [result("a", 0.5), result("b", 0.6), result("a", 0.7), result("b", 0.4)]
    assert [(one.name, one.score) for one in best_runs(runs, lower=False)] == [("a", 0.7), ("b", 0.6)]


def test_the_probe_is_kept_unless_another_beats_it_by_more_than_noise() -> None:
    probe = result("probe", 0.80, (0.7, 0.8, 0.9))
    clear, noisy = result("top", 0.90, (0.8, 0.9, 1.0)), result("top", 0.82, (0.6, 0.9, 0.95))
    assert choose([probe, clear], "accuracy", lower=False).result is clear
    kept = choose([probe, noisy], "accuracy", lower=False)
    assert kept.result is probe
    assert "noise" in kept.reason
    base, by_one_error = result("probe", 0.8, (0.8,) * 10), result("top", 0.85, (0.75,) + (0.9,) * 9)
    assert choose([base, by_one_error], "accuracy", lower=False).result is by_one_error
    by_less = result("top", 0.85, (0.75,) * 3 + (0.9,) * 7)
    assert choose([base, by_less], "accuracy", lower=False).result is base
    worse = choose([probe, result("top", 0.7, (0.6, 0.7, 0.8))], "accuracy", lower=False)
    assert (worse.result, "no candidate is better" in worse.reason) == (probe, True)
    assert choose([probe, clear], "mae", lower=True).result is probe
    assert choose([probe], "accuracy", lower=False).result is probe
    assert choose([result("probe", 0.8), result("top", 0.81)], "f1", lower=False).result.name == "top"


def test_candidates_that_train_the_same_groups_are_one() -> None:
    default = RECIPES["layer-decay"]
    assert [one.name for one in candidates(default, 12)] == ["probe", "top", "half", "lora", "layer-decay"]
    assert [one.name for one in candidates(default, 4)] == ["probe", "top", "lora", "layer-decay"]
    assert [one.name for one in candidates(default, 2)] == ["probe", "half", "lora", "layer-decay"]
    assert [one.name for one in candidates(default, 12, 6)] == ["probe", "top", "lora", "layer-decay"]


def test_errors_in_the_unit_of_small_targets_keep_their_digits() -> None:
    chosen = choose([result("probe", 2.5e-9), result("full", 1.25e-9)], "mae", lower=True)
    assert "mae 1.25e-09 against 2.5e-09" in chosen.reason
