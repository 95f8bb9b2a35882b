"""The metric that chooses the kept epoch where none is named: not accuracy where one class is nearly all there is."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.tiny import images, model
from zoo.data.table import Table
from zoo.engine.loading.class_counts import monitor_of
from zoo.tasks.find import BUILTIN

SINGLE = BUILTIN["single-label"]


def table(*numbers: int, **options: Any) -> Table:
    targets = np.repeat(np.arange(len(numbers)), numbers)
    given = {"inputs": list(range(len(targets))), "targets": targets, "classes": tuple("abcdef"[: len(numbers)])}
    return Table(**(given | options))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((50, 50), None),
        ((79, 21), None),
        ((80, 20), "auroc"),
        ((3, 97), "auroc"),
        ((22, 20, 18, 2), None),
        ((60, 20, 20), None),
        ((70, 10, 10, 10), "balanced_accuracy"),
        ((90, 10, 0), "auroc"),
        ((50, 0), None),
    ],
)
def test_the_shares_of_the_classes_decide(numbers: tuple[int, ...], expected: str | None) -> None:
    assert monitor_of(SINGLE, table(*numbers), table(*[5] * len(numbers))) == expected


def test_medical_samples_have_one_that_the_shares_do_not_move() -> None:
    valid = table(5, 5)
    assert monitor_of(SINGLE, table(10, 10, reads="volume"), valid) == "auroc"
    assert monitor_of(SINGLE, table(1, 1, inputs=["a/1.DCM", "a/2.dcm"]), valid) == "auroc"
    assert monitor_of(SINGLE, table(1, 1, 1, inputs=["1.nii.gz", "2.nii.gz", "3.nii.gz"]), table(5, 5, 5)) == "balanced_accuracy"
    assert monitor_of(SINGLE, table(1, 1, inputs=["a/1.png", "a/2.png"]), valid) is None


def test_validation_data_of_one_class_or_none_leave_it_as_it_is() -> None:
    assert monitor_of(SINGLE, table(90, 10), table(9, 0)) is None
    assert monitor_of(SINGLE, table(90, 10), None) is None


def test_other_tasks_keep_theirs() -> None:
    rows = np.zeros((100, 2), np.float32)
    rows[:3, 0] = 1
    several = table(50, 50, targets=rows)
    assert monitor_of(BUILTIN["multi-label"], several, several) is None
    numbers = table(50, 50, targets=np.arange(100, dtype=np.float32), classes=())
    assert monitor_of(BUILTIN["regression"], numbers, numbers) is None


def rare(seed: int = 0) -> tuple[Any, Any]:
    pixels, labels = images(60, seed=seed, classes=2)
    rows = [row for row, label in enumerate(labels) if label == "blue" or row < 10]
    return pixels[rows], [labels[row] for row in rows]


def fit(out: Path, **options: Any) -> Any:
    given = {"recipe": "lp-ft", "epochs": 3, "batch_size": 8, "quiet": True} | options
    return model(2).fit(rare(), rare(1), out=out, **given)


def test_a_run_on_rare_samples_is_chosen_and_shown_by_auroc(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run = fit(tmp_path / "run")
    assert run.monitor == "auroc"
    assert run.metrics["auroc"] == max(record["auroc"] for record in run.history)
    assert "auroc" in repr(run)
    assert "epochs are compared by auroc, as 86 % of the training samples are 'blue'" in caplog.text
    assert fit(tmp_path / "named", monitor="accuracy").monitor == "accuracy"


def test_a_resumed_run_keeps_the_metric_that_it_began_with(tmp_path: Path) -> None:
    fit(tmp_path / "run", keep_checkpoints=True)
    assert fit(tmp_path / "run", keep_checkpoints=True, resume=True).monitor == "auroc"
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    del record["finished"]
    record["config"]["monitor"] = None  # as earlier versions wrote it
    path.write_text(json.dumps(record))
    assert fit(tmp_path / "run", keep_checkpoints=True, resume=True).monitor == "accuracy"
