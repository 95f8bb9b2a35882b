"""What only a GPU can show: bf16, the fused optimizer, and a guard whose message comes late."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.test_resume import tables
from tests.engine.tiny import difference, model, values
from zoo.engine.optim.nonfinite import Guard, NonFiniteError
from zoo.engine.rundir.run_folder import Run
from zoo.errors import InterruptedRunError, TrainingError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")


def fit(out: Path, data: Any = None, **options: Any) -> tuple[Any, Run]:
    net = model(head="mlp", hidden=4)
    settings = {"recipe": "lp-ft", "epochs": 4, "batch_size": 8, "lr": 1e-2, "device": "cuda", "workers": 0}
    return net, net.fit(*(data or tables()), out=out, quiet=True, **(settings | options))


def test_a_fit_in_bf16_learns_and_brings_the_model_back_to_the_cpu(tmp_path: Path) -> None:
    net, run = fit(tmp_path / "run", recipe="full", epochs=20, augment="none")
    told = json.loads((run.dir / "run.json").read_text())
    assert told["device"].startswith("cuda")
    assert told["precision"] == ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32")
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]
    assert run.metrics["accuracy"] > 0.6
    assert {parameter.device.type for parameter in net.parameters()} == {"cpu"}
    assert all(bool(torch.isfinite(parameter).all()) for parameter in net.parameters())


@pytest.mark.parametrize(("reads", "where"), [(13, "train"), (36, "train"), (60, "train"), (14, "valid")])
def test_a_resumed_run_equals_an_uninterrupted_one_but_for_rounding(reads: int, where: str, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        fit(tmp_path / "cut", tables(reads, where), precision="fp32")
    net, run = fit(tmp_path / "cut", resume=True, precision="fp32")
    expected, uncut = fit(tmp_path / "whole", precision="fp32")
    assert difference(values(net), values(expected)) < 1e-3
    losses = [[record["train_loss"] for record in made.history] for made in (run, uncut)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_a_rate_that_explodes_is_told_and_harms_nothing(tmp_path: Path) -> None:
    net = model()
    with pytest.raises(TrainingError, match="not finite in epoch 1"):
        net.fit(*tables(), out=tmp_path / "run", quiet=True, recipe="full", epochs=2, batch_size=8, lr=1e30, warmup=0, device="cuda")
    assert all(bool(torch.isfinite(value).all()) for value in values(net).values())


def test_a_stop_does_not_hide_steps_that_were_not_read_yet(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not finite in epoch 1"):
        fit(tmp_path, tables(24), recipe="full", lr=1e30, warmup=0.0)
    assert not (tmp_path / "checkpoint").exists()


def test_found_inf_holds_the_optimizer_back_until_the_check_names_the_first_step() -> None:
    layer = torch.nn.Linear(2, 1, device="cuda")
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    guard = Guard(optimizer, layer.parameters(), torch.device("cuda"), 1.0)
    held = []
    for step in range(4):
        loss = layer(torch.ones(1, 2, device="cuda")).sum() * (float("inf") if step >= 2 else 1.0)
        guard.check_loss(loss, step)
        loss.backward()
        guard.check_gradients(step)
        optimizer.step()
        optimizer.zero_grad()
        held.append(layer.weight.detach().clone())
    assert not torch.equal(held[0], held[1])
    assert torch.equal(held[1], held[2])
    assert torch.equal(held[1], held[3])
    with pytest.raises(NonFiniteError, match="step 2"):
        guard.check()


def test_loader_workers_pin_memory_and_survive_a_signal(tmp_path: Path) -> None:
    net = model(head="mlp", hidden=4)
    net.backbone.register_forward_hook(lambda *_: os.kill(os.getpid(), signal.SIGTERM) if net.training else None)
    with pytest.raises(InterruptedRunError):
        net.fit(*tables(), out=tmp_path, quiet=True, recipe="full", epochs=2, batch_size=24, device="cuda", workers=2)
