"""The demonstration, in a setting of seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.builtin.demo import METHODS, PER_CLASS, claim, load_digits, run_demo, split_per_class
from zoo.errors import OptionError, OutputExistsError

QUICK = [replace(method, epochs=5) for method in METHODS]


def test_transfer_beats_training_from_scratch_even_in_few_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_demo(tmp_path / "demo", seeds=1, methods=QUICK)
    probe, tuned, scratch = (row["mean"] for row in report["rows"])
    assert min(probe, tuned) > scratch + 0.05
    assert min(probe, tuned) > 0.85

    shown = capsys.readouterr()
    assert all(f"{row['name']}" in shown.out and f"{row['mean']:.3f}" in shown.out for row in report["rows"])
    assert str(tmp_path / "demo") in shown.out.replace("\n", "")
    assert len(shown.err.splitlines()) == 3  # no terminal: one plain line per training
    assert "\x1b" not in shown.out + shown.err

    assert json.loads((tmp_path / "demo" / "demo.json").read_text()) == report
    assert (tmp_path / "demo" / "demo.png").read_bytes().startswith(b"\x89PNG")
    saved = zoo.load(tmp_path / "demo" / "fine-tuned-seed0")
    assert saved.evaluate(load_digits().test)["accuracy"] == pytest.approx(tuned)


def test_the_test_split_is_fixed_and_apart_from_all_training_images() -> None:
    digits = load_digits()
    assert len(digits.test[1]) == 899
    assert [len(digits.valid[1]), len(digits.pool[1])] == [100, 798]
    assert all(np.array_equal(a, b) for a, b in zip(digits.test, load_digits().test, strict=True))
    assert digits.test[0].dtype == np.uint8
    assert digits.test[0].max() == 255


def test_a_seed_draws_ten_images_of_each_class_and_another_seed_other_ones() -> None:
    pool = load_digits().pool
    (first, labels), rest = split_per_class(pool, seed=0)
    (again, _), _ = split_per_class(pool, seed=0)
    (other, _), _ = split_per_class(pool, seed=1)
    assert np.bincount(labels).tolist() == [PER_CLASS] * 10
    assert len(labels) + len(rest[1]) == len(pool[1])
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_demo_takes_the_next_free_folder_and_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [claim(None), claim(None), claim("mine")] == [Path("runs/demo"), Path("runs/demo-2"), Path("mine")]
    (tmp_path / "mine" / "kept.txt").write_text("kept")
    with pytest.raises(OutputExistsError, match="mine"):
        claim("mine")


def test_no_seed_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="seeds is 0"):
        run_demo(tmp_path / "demo", seeds=0)
    assert not (tmp_path / "demo").exists()
