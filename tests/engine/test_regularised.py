"""Runs with penalties, random depth and averages: they do something, and a stopped one goes on bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import difference, images, model, timeless, values
from zoo.engine import training
from zoo.engine.run import Run

OPTIONS: dict[str, Any] = {"recipe": "lp-ft", "epochs": 4, "batch_size": 8, "lr": 1e-2}
ALONE: list[dict[str, Any]] = [
    {"l2_sp": 0.1},
    {"delta": 0.1},
    {"bss": 0.1},
    {"drop_path": 0.5},
    {"dropout": 0.5},
    {"ema": 0.9},
    {"average": 0.5},
    {"wise_ft": 0.5},
]


def name(options: dict[str, Any]) -> str:
    return "-".join(options)


def fit(out: Path, valid: bool = True, **options: Any) -> tuple[Any, Run]:
    net = model(head="mlp", hidden=4)
    return net, net.fit(images(24), images(12, seed=1) if valid else False, out=out, quiet=True, **(OPTIONS | options))


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "INTERVAL", 0.0)


@pytest.mark.parametrize("options", ALONE, ids=name)
def test_each_option_changes_what_is_learned_and_leaves_no_trace_on_the_model(options: dict[str, Any], tmp_path: Path) -> None:
    plain, _ = fit(tmp_path / "plain", valid=False)
    net, _ = fit(tmp_path / "with", valid=False, **options)
    assert difference(values(net), values(plain)) > 1e-6
    modules = list(net.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert [getattr(module, "p", None) for module in modules] == [getattr(module, "p", None) for module in plain.modules()]


EVERYTHING = {"l2_sp": 0.1, "delta": 0.1, "bss": 0.01, "drop_path": 0.5, "dropout": 0.3, "ema": 0.9}


@pytest.mark.parametrize("options", [*ALONE, EVERYTHING, {"average": 0.75, "wise_ft": 0.5, "recompute": True, "drop_path": 0.5}], ids=name)
def test_a_run_resumed_at_the_end_of_an_epoch_equals_an_uninterrupted_one(options: dict[str, Any], tmp_path: Path) -> None:
    expected, whole = fit(tmp_path, **options)
    newest = sorted((tmp_path / "checkpoint").glob("step-*"))
    assert len(newest) == 2
    shutil.rmtree(newest[-1])
    net, run = fit(tmp_path, resume=True, **options)
    assert difference(values(net), values(expected)) == 0
    assert timeless(run.history) == timeless(whole.history)


def test_a_strong_pull_to_the_start_keeps_the_backbone_where_it_was(tmp_path: Path) -> None:
    start = {key: value for key, value in values(model(head="mlp", hidden=4)).items() if key.endswith("conv.weight")}
    moved = []
    for weight in (0.0, 10.0):
        options = {"recipe": "full", "weight_decay": 0, "layer_decay": 1, "epochs": 10, "l2_sp": weight}
        net, _ = fit(tmp_path / str(weight), valid=False, **options)
        moved.append(difference({key: values(net)[key] for key in start}, start))
    assert moved[1] < moved[0] / 3
