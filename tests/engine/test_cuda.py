"""What only a GPU can show: bf16, the fused optimizer, memory that runs out, and a guard whose message comes late."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.engine.test_resume import tables
from tests.engine.tiny import difference, images, model, values
from tests.toy import toy_spec
from zoo.declare import Image
from zoo.engine.optim.nonfinite import Guard, NonFiniteError
from zoo.engine.rundir.run_folder import Run
from zoo.errors import InterruptedRunError, TrainingError
from zoo.models.backbone import Backbone

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and ZOO_TEST_GPU=1, which make test-gpu sets")


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
    assert not net.has_random_head
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


def test_tensors_that_nothing_reaches_do_not_end_loader_processes() -> None:
    net = model()
    net.backbone.register_forward_pre_hook(_leave_garbage)
    gc.disable()  # so that it is still there when the processes are forked
    try:
        _leave_garbage()
        first = net.embed(images(24)[0], device="cuda", workers=2, batch_size=4)
    finally:
        gc.enable()
    assert np.allclose(first, net.embed(images(24)[0], device="cpu"), atol=1e-2)


def _leave_garbage(*_: Any) -> None:
    ring: list[Any] = [torch.ones(4, device="cuda")]
    ring.append(ring)


@contextmanager
def memory(mib: int) -> Iterator[None]:
    """Let this process have so much of the GPU's memory beside what it holds now."""
    gc.collect()
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + mib * 2**20) / whole)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_batch_that_does_not_fit_is_trained_in_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with memory(400), caplog.at_level(logging.WARNING, "zoo"):
        net, run = fit(tmp_path / "run", (images(48), False), recipe="full", epochs=1, batch_size=48, image_size=640, augment="none")
    assert "out of memory: going on with micro-batches" in caplog.text
    assert len(run.history) == 1
    assert all(bool(torch.isfinite(value).all()) for value in values(net).values())


def test_a_pass_whose_batch_does_not_fit_goes_on_with_smaller_ones(caplog: pytest.LogCaptureFixture) -> None:
    net = Backbone(toy_spec(inputs=Image(size=640)), weights=False).adapt(3)
    pictures = images(48)[0]
    with memory(400), caplog.at_level(logging.WARNING, "zoo"):
        found = net.embed(pictures, device="cuda", batch_size=48)
    assert "out of memory during inference: going on" in caplog.text
    assert np.allclose(found, net.embed(pictures, device="cpu", batch_size=8), atol=1e-2)


@pytest.mark.parametrize("task", ["single-label", "multi-label", "regression"])
def test_a_probe_is_solved_as_on_the_cpu(task: str, tmp_path: Path) -> None:
    pixels, labels = images(60)
    targets: Any = {
        "single-label": labels,
        "multi-label": [[label, *(["bright"] if index % 2 else [])] for index, label in enumerate(labels)],
        "regression": pixels.astype("float64").mean((1, 2, 3)).tolist(),
    }[task]
    found = []
    for device in ("cpu", "cuda"):
        net = model(1 if task == "regression" else 4 if task == "multi-label" else 3, task=task)
        net.fit((pixels, targets), False, recipe="linear-probe", device=device, precision="fp32", quiet=True, out=tmp_path / device)
        found.append(np.array((net.predict if task == "regression" else net.predict_proba)(pixels, device="cpu"), dtype=float))
    assert np.allclose(found[0], found[1], atol=0.02)


def test_recomputed_activations_take_less_memory(tmp_path: Path) -> None:
    peaks = []
    for again in (False, True):
        torch.cuda.reset_peak_memory_stats()
        net = Backbone(toy_spec(options={"depth": 12}), weights=False).adapt(3)
        fit_options: dict[str, Any] = {"recipe": "full", "epochs": 1, "batch_size": 24, "image_size": 256, "augment": "none", "quiet": True}
        net.fit(images(24), False, device="cuda", workers=0, recompute=again, out=tmp_path / str(again), **fit_options)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] < 0.7 * peaks[0]


def test_one_process_of_torchrun_trains_with_nccl(tmp_path: Path) -> None:
    program = f"""
from tests.engine.tiny import images, model
run = model().fit(images(24), False, recipe="full", epochs=2, batch_size=8, device="cuda", quiet=True, out={str(tmp_path / "run")!r})
print("losses", *[record["train_loss"] for record in run.history])
"""
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = torchrun(tmp_path / "program.py", processes=1)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "losses" in done.stdout
    assert "destroy_process_group" not in done.stderr


def torchrun(program: Path, processes: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), str(program)]
    around = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, env=around, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


def test_a_compiled_backbone_learns_as_the_plain_one(tmp_path: Path) -> None:
    losses = []
    for compiled in (False, True):
        net = Backbone(toy_spec(options={"drop_rate": 0.0}), weights=False).adapt(3)  # compiled code draws other random numbers
        options: dict[str, Any] = {"recipe": "full", "epochs": 4, "batch_size": 8, "augment": "none", "precision": "fp32", "quiet": True}
        run = net.fit(images(24), False, device="cuda", workers=0, compile=compiled, out=tmp_path / str(compiled), **options)
        losses.append([record["train_loss"] for record in run.history])
    assert losses[0] == pytest.approx(losses[1], abs=2e-2)


@pytest.mark.parametrize("options", [{}, {"trains": "lora"}, {"recompute": True}], ids=str)
def test_memory_is_planned_as_the_run_then_takes_it(options: dict[str, Any], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"recipe": "full", "epochs": 1, "batch_size": 24, "image_size": 256, "augment": "none", "device": "cuda"}
    told = model().plan(images(48), False, **settings, **options).memory
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model().fit(images(48), False, workers=0, quiet=True, out=tmp_path / "run", **settings, **options)
    assert told == pytest.approx(torch.cuda.max_memory_allocated() - before, rel=0.25)


def test_two_processes_on_one_gpu_are_told_what_to_do(tmp_path: Path) -> None:
    if torch.cuda.device_count() > 1:
        pytest.skip("this machine has several GPUs")
    program = f"from tests.engine.tiny import images, model; model().fit(images(24), False, quiet=True, out={str(tmp_path / 'run')!r})"
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = torchrun(tmp_path / "program.py", processes=2)
    assert done.returncode != 0
    assert "OptionError" in done.stderr
    assert "share" in done.stderr or "GPU" in done.stderr
