"""The order of candidates, how sure it is, and how orders agree: all without torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.data.table import NO_GROUP, Table
from zoo.errors import OptionError, SavedModelError
from zoo.select.ranking.agreement import agreement, agreements
from zoo.select.ranking.candidates import MODALITIES, PRIORS
from zoo.select.ranking.limits import Limits, bytes_of
from zoo.select.ranking.opening import together
from zoo.select.ranking.ranking import Ranking, in_order, paired_difference
from zoo.select.ranking.row import Judged, Row, file_of, read_row, write_row
from zoo.util.toml_files import read_toml

RIGHT = np.random.default_rng(0).random(200) < 0.8


def judged(right: Any, epochs: int = 0) -> Judged:
    """A result whose draws are those of a bootstrap over the same 200 samples."""
    rng = np.random.default_rng(1)
    draws = tuple(float(np.mean(right[rng.integers(0, 200, 200)])) for _ in range(300))
    return Judged(float(np.mean(right)), min(draws), max(draws), draws, 1.0, epochs)


def row(name: str, right: Any, **changes: Any) -> Row:
    known = {"samples": 200, "parameters": 1000, "accuracy": None, "latency_ms": 1.0, "memory": 100, "throughput": 10.0}
    known |= {"seconds": 1.0, "pass_seconds": 0.9, "probe": judged(right), "scores": {"logme": float(np.mean(right))}}
    return Row(name=name, **(known | changes))


def ranking(*rows: Row, lower: bool = False) -> Ranking:
    return Ranking(in_order(rows, lower=lower), {}, "accuracy", lower, Path("runs/x"), 1.0)


def worse_by(share: float) -> Any:
    right = RIGHT.copy()
    right[: int(200 * share)] = False
    return right


def test_candidates_are_told_apart_by_the_paired_difference_only() -> None:
    nearly = RIGHT.copy()
    nearly[np.flatnonzero(RIGHT)[0]] = False
    found = ranking(row("far", worse_by(0.3)), row("near", nearly, latency_ms=0.5), row("top", RIGHT))
    assert [one.name for one in found.rows] == ["top", "near", "far"]
    assert found.ties == ["near"]
    assert "cannot be told apart from near, which is faster" in found.reason
    difference = paired_difference(judged(RIGHT), judged(worse_by(0.3)), lower=False)
    assert difference is not None
    assert 0 < difference[1] < difference[0] < difference[2]
    assert ranking(row("only", RIGHT)).reason.endswith("the only one")


def test_a_candidate_is_dominated_by_a_better_one_that_costs_no_more() -> None:
    slow, fast = row("slow", worse_by(0.3), latency_ms=2.0), row("fast", worse_by(0.3), latency_ms=0.5)
    found = ranking(row("top", RIGHT), slow, fast)
    assert found.dominated == ["slow"]
    assert found.to_dict()["rows"][0]["dominated"] is False


def test_tuned_candidates_come_first_and_those_of_fewer_samples_last() -> None:
    few = row("few", RIGHT, samples=50)
    tuned = row("tuned", worse_by(0.3)).with_tuned(judged(worse_by(0.1), epochs=3))
    assert [one.name for one in ranking(few, row("probed", RIGHT), tuned).rows] == ["tuned", "probed", "few"]
    assert [one.name for one in ranking(few, row("probed", RIGHT), lower=True).rows] == ["probed", "few"]


def test_tau_counts_all_pairs_and_those_of_like_size() -> None:
    sizes = np.array([1.0, 1.5, 10.0, 15.0, 100.0, 150.0])
    reference = np.array([0.1, 0.2, 0.5, 0.6, 0.8, 0.9])
    by_size = agreement(sizes, reference, sizes)
    assert by_size.tau == by_size.tau_like_size == 1.0
    assert (by_size.pairs, by_size.pairs_like_size) == (15, 3)
    swapped = agreement(np.array([0.2, 0.1, 0.6, 0.5, 0.9, 0.8]), reference, sizes)
    assert swapped.tau == pytest.approx(9 / 15)
    assert swapped.tau_like_size == -1.0, "all that it says beyond the size is wrong"
    few = agreement(sizes[:4], reference[:4], sizes[:4])
    assert few.pairs_like_size == 2
    assert math.isnan(few.tau_like_size), "two pairs say nothing"


def test_tau_has_an_interval_over_the_draws_and_skips_unknown_values() -> None:
    rng = np.random.default_rng(0)
    reference = np.array([0.5, 0.6, 0.7, 0.8])
    draws = reference[:, None] + 0.05 * rng.normal(size=(4, 200))
    found = agreement(reference, reference, np.ones(4), draws)
    assert found.low < 1.0 == found.tau == found.high
    rows = agreements({"some": np.array([1.0, 2.0, np.nan, 3.0]), "few": np.array([1.0, np.nan, np.nan, 2.0])}, reference, np.ones(4), None)
    assert [one["score"] for one in rows] == ["some"]
    assert rows[0]["pairs"] == 3
    assert rows[0]["low"] is None
    assert math.isnan(agreement(np.ones(4), reference, np.ones(4)).tau), "equal scores have no order"


def test_groups_stay_where_one_of_two_tables_has_none(caplog: pytest.LogCaptureFixture) -> None:
    train = Table([0, 1, 2], np.array([0, 1, 0]), ("a", "b"), groups=("x", "x", f"{NO_GROUP}2"), source="train.csv")
    valid = Table([3, 4, 5], np.array([0, 1, 0]), ("a", "b"), source="valid.csv")
    groups = together([train, valid]).groups
    assert groups is not None
    assert groups[:2] == ("x", "x")
    assert len(set(groups)) == 5
    assert all(group.startswith(NO_GROUP) for group in groups[2:])
    assert "valid.csv: no groups" in caplog.text
    assert together([valid, valid]).groups is None


def test_a_row_survives_its_file(tmp_path: Path) -> None:
    given = row("a/b c", RIGHT, scores={"leep": float("nan"), "knn": 0.5}).with_tuned(judged(RIGHT, epochs=2))
    path = file_of(tmp_path, given.name, 200)
    write_row(path, given)
    found = read_row(path)
    assert found is not None
    assert found.probe == given.probe
    assert found.tuned == given.tuned
    assert math.isnan(found.scores["leep"])
    path.write_text('{"name": 1}', encoding="utf-8")
    with pytest.raises(SavedModelError, match="a_b_c-200"):
        read_row(path)
    assert read_row(tmp_path / "none.json") is None


def test_sizes_of_memory_are_read() -> None:
    assert bytes_of("500MB") == 5e8
    assert bytes_of("1.5 GiB") == 1.5 * 2**30
    assert bytes_of(7) == 7
    with pytest.raises(OptionError, match="'2GB'"):
        bytes_of("5 apples")
    with pytest.raises(OptionError, match=r"(?s)max_params is -3; give a number above 0.*max_latency_ms is 0"):
        Limits(max_params=-3, max_latency_ms=0)


def test_there_is_a_prior_list_for_every_kind_of_data() -> None:
    assert read_toml(PRIORS).keys() == set(MODALITIES)
    assert all(len(names) == len(set(names)) > 3 for names in read_toml(PRIORS).values())
