"""Saved models and runs of earlier versions still open, go on and give what they gave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import zoo
from tests.engine.test_resume import OPTIONS, tables
from tests.engine.tiny import images, model, timeless
from zoo.models.heads import LinearHead
from zoo.plugins.loader import load_function

SAVED = Path(__file__).parent / "fixtures" / "version-0.1.0"
RUN = OPTIONS | {"ema": 0.9, "l2_sp": 0.01, "wise_ft": 0.5, "device": "cpu", "monitor": "loss"}

pytestmark = pytest.mark.usefixtures("toys")


def test_a_model_of_0_1_0_gives_equal_logits() -> None:
    loaded = zoo.load(SAVED / "model")
    told = json.loads((SAVED / "logits.json").read_text())
    ramp = torch.linspace(-2, 2, 3 * 16 * 16).reshape(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ramp), torch.tensor(told["linspace"]), rtol=0, atol=1e-6)
    assert loaded.predict_proba(images(6, seed=2)[0]) == pytest.approx(torch.tensor(told["probabilities"]).numpy(), abs=1e-6)


def test_a_run_of_0_1_0_goes_on_to_what_it_would_have_become(tmp_path: Path) -> None:
    folder = shutil.copytree(SAVED / "run", tmp_path / "run")
    net = model(head="mlp", hidden=4)
    run = net.fit(*tables(), out=folder, quiet=True, resume=True, **RUN)
    finished = json.loads((SAVED / "run-finished.json").read_text())
    assert len(run.history) == len(finished)
    for record, expected in zip(timeless(run.history), timeless(finished), strict=True):
        assert record.pop("phase") == expected.pop("phase")
        assert record == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_head_that_was_declared_for_0_1_0_is_found_where_it_moved() -> None:
    assert load_function("zoo.heads:LinearHead") is LinearHead
