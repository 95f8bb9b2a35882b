"""A search in each fold of a cross-validation, measured on samples that chose nothing."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo.select
from tests.engine.tiny import difference, images, model, values
from tests.select.command_line import run
from zoo.data.open import open_data
from zoo.data.splits.folds import cross_validation_folds
from zoo.errors import InterruptedRunError, OptionError, SavedModelError

pytest.importorskip("optuna")
DATA = images(36)
FIT: dict[str, Any] = {"trials": 2, "search": {"lr": "1e-4..1e-1,log"}, "only": ["lr"], "epochs": 1, "batch_size": 8, "quiet": True}


@pytest.mark.usefixtures("toys")
def test_each_fold_searches_without_its_held_out_samples_and_is_measured_on_them(tmp_path: Path) -> None:
    net = model()
    before = values(net)
    found = zoo.select.tune_nested(net, DATA, folds=2, out=tmp_path / "nested", **FIT)
    assert difference(values(net), before) == 0.0
    table = open_data(DATA)
    for fold, result in zip(cross_validation_folds(table, 2, seed=0), found.folds, strict=True):
        held = table.select(fold.held_out)
        best = zoo.load(found.dir / f"fold-{result.fold}" / "best")
        assert best.evaluate(held)["accuracy"] == pytest.approx(result.metrics["accuracy"])
        data = json.loads((found.dir / f"fold-{result.fold}" / "tune.json").read_text())["tune"]
        trained, judged = (int(data[name].split()[0]) for name in ("train data", "valid data"))
        assert (trained + judged, result.held_out) == (len(fold.train), len(fold.held_out))
    assert found.scores["accuracy"].mean == pytest.approx(np.mean([fold.metrics["accuracy"] for fold in found.folds]))
    assert len(found.chosen) == 2

    (found.dir / "fold-1" / "best" / "model.safetensors").unlink()  # a finished fold is only read
    again = zoo.select.tune_nested(model(), DATA, folds=2, out=found.dir, resume=True, **FIT)
    assert (again.folds, again.chosen) == (found.folds, found.chosen)
    with pytest.raises(SavedModelError, match=r"folds was 2 and is 3"):
        zoo.select.tune_nested(model(), DATA, folds=3, out=found.dir, resume=True, **FIT)
    with pytest.raises(SavedModelError, match=r"(?s)batch_size was 8 and is 4.*trials was 2 and is 3"):
        zoo.select.tune_nested(model(), DATA, folds=2, out=found.dir, resume=True, **FIT | {"trials": 3, "batch_size": 4})


def test_an_interrupted_nested_search_goes_on_in_its_own_folder_not_in_that_of_a_fold(tmp_path: Path) -> None:
    def stop(_record: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError) as stopped:
        zoo.select.tune_nested(model(), DATA, folds=2, out=tmp_path / "nested", **FIT | {"epochs": 2, "on_epoch": stop})
    assert str(stopped.value).endswith(f". Go on with resume=True (--resume) and out={str(tmp_path / 'nested')!r}")
    assert str(stopped.value).count("out=") == 1


def test_what_contradicts_a_nested_search_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", "zoo/glyphnet", str(tmp_path), "--nested", "1", "--valid", "other", "--workers", "2", "--storage", "study.db"]
    assert run(*words) == 2
    told = capsys.readouterr().err
    assert all(fault in told for fault in ("--nested is 1", "--valid: each fold", "--workers: ", "--storage: "))
    with pytest.raises(OptionError, match="tune_nested takes a model"):
        zoo.select.tune_nested("zoo/glyphnet", DATA)  # type: ignore[arg-type]
