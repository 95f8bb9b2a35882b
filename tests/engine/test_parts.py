from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.engine.tiny import images, model
from zoo.data.open import open_data
from zoo.engine.objective.class_weights import class_weights
from zoo.engine.optim.nonfinite import Guard, NonFiniteError
from zoo.engine.optim.optimizer import build_optimizer
from zoo.engine.optim.optimizer_state import optimizer_tensors, restore_optimizer
from zoo.engine.optim.target_scale import TargetScale
from zoo.engine.options.epochs import list_epochs, next_phase
from zoo.engine.options.own_parts import name_of
from zoo.engine.options.resolve import resolve
from zoo.engine.rundir.curves import draw_curves
from zoo.engine.runtime.oom import is_out_of_memory
from zoo.engine.runtime.signals import Stopped, stop_signals
from zoo.engine.train.train_epoch import not_finite
from zoo.errors import SavedModelError
from zoo.tasks.find import BUILTIN


def test_the_plan_resolves_frozen_prefixes_and_knows_where_phases_end() -> None:
    groups = model().groups
    plan = list_epochs(resolve("lp-ft", {"epochs": 4, "freeze": "stem"}), groups, steps=3)
    assert [(epoch.phase.name, epoch.frozen, epoch.done, epoch.cached) for epoch in plan] == [
        ("probe", 3, 0, True),
        ("probe", 3, 1, True),
        ("full", 1, 0, False),  # augmented anew every epoch
        ("full", 1, 1, False),
    ]
    assert [next_phase(plan, at) for at in range(4)] == [2, 2, 4, 4]


def test_features_are_cached_only_where_no_fresh_augmentation_is_asked_for() -> None:
    groups = model().groups
    cached = {
        options: list_epochs(resolve("linear-probe", dict(options)), groups, steps=3)[0].cached
        for options in ((), (("augment", "light"),), (("augment", "light"), ("views", 2)), (("cache", False),))
    }
    assert list(cached.values()) == [True, False, True, False]


def test_the_optimizer_holds_every_parameter_once_frozen_or_not() -> None:
    net = model().freeze("stage.0")
    optimizer = build_optimizer(net, resolve("layer-decay", {}), torch.device("cpu"))
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in net.parameters())


def test_optimizer_state_travels_under_the_parameters_names() -> None:
    nets = [model(), model()]
    optimizers = [build_optimizer(net, resolve("full", {}), torch.device("cpu")) for net in nets]
    for net, optimizer in zip(nets, optimizers, strict=True):
        net(torch.ones(2, 3, 16, 16)).sum().backward()
        if net is nets[0]:
            optimizer.step()
    state = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizers[0]).items()}
    assert "head.linear.weight:exp_avg" in state
    restore_optimizer(optimizers[1], state)
    again = optimizer_tensors(optimizers[1])
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    with pytest.raises(SavedModelError, match=r"head\.other\.weight"):
        restore_optimizer(optimizers[1], {"head.other.weight:exp_avg": torch.zeros(1)})


def test_restored_moments_have_the_memory_format_of_their_parameters() -> None:
    net = model().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(net, resolve("full", {}), torch.device("cpu"))
    net(torch.ones(2, 3, 16, 16)).sum().backward()
    optimizer.step()
    state = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in optimizer_tensors(optimizer).items()}
    restore_optimizer(optimizer, state)
    for parameter, held in optimizer.state.items():
        assert held["exp_avg"].stride() == held["exp_avg_sq"].stride() == parameter.stride()
    assert all(torch.equal(tensor, state[name]) for name, tensor in optimizer_tensors(optimizer).items())


def test_losses_are_summed_as_plain_numbers_where_the_guard_reads_them_anyway() -> None:
    layer = nn.Linear(2, 1)
    guard = Guard(torch.optim.AdamW(layer.parameters()), layer.parameters(), torch.device("cpu"), None)
    assert isinstance(guard.check_loss(torch.tensor(0.5), 0), float)
    guard.deferred = True
    seen = guard.check_loss(torch.tensor(0.5), 0)
    assert isinstance(seen, torch.Tensor)
    assert seen.dtype == torch.float64


def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_step() -> None:
    layer = nn.Linear(2, 1)
    guard = Guard(torch.optim.AdamW(layer.parameters()), layer.parameters(), torch.device("cpu"), None)
    with pytest.raises(NonFiniteError, match="loss of step 3"):
        guard.check_loss(torch.tensor(float("nan")), 3)
    layer(torch.ones(1, 2)).sum().backward()
    guard.check_gradients(4)
    assert layer.weight.grad is not None
    layer.weight.grad[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match="gradient of step 5"):
        guard.check_gradients(5)


def test_a_deferred_guard_holds_the_fused_optimizer_back_and_names_the_first_step() -> None:
    layer = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    guard = Guard(optimizer, layer.parameters(), torch.device("cpu"), None)
    guard.deferred = True  # what a GPU does; fused AdamW reads found_inf on the CPU as well
    before = None
    for step in range(4):
        loss = layer(torch.ones(1, 2)).sum() * (float("nan") if step >= 2 else 1.0)
        guard.check_loss(loss, step)
        loss.backward()
        guard.check_gradients(step)
        optimizer.step()
        optimizer.zero_grad()
        before = layer.weight.detach().clone() if step == 1 else before
    assert before is not None
    assert torch.equal(layer.weight, before)
    with pytest.raises(NonFiniteError, match="step 2"):
        guard.check()


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    targets = np.array([0, 0, 0, 1, 2, 2])
    weights = class_weights("balanced", BUILTIN["single-label"], targets, ("a", "b", "c"))
    assert weights is not None
    assert weights.tolist() == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=targets).tolist())
    many = class_weights("balanced", BUILTIN["multi-label"], np.array([[1, 0], [1, 1], [0, 0], [1, 0]]), ("a", "b"))
    assert many is not None
    assert many.tolist() == pytest.approx([1 / 3, 3.0])


def test_smoothed_multi_label_targets_move_toward_one_half() -> None:
    logits = torch.tensor([[4.0, -4.0]])
    plain, smooth = (BUILTIN["multi-label"].loss(logits, torch.tensor([[1.0, 0.0]]), smoothing=s) for s in (0.0, 0.2))
    assert smooth == pytest.approx(float(plain) + 2 * 0.1 * 4.0)  # of two labels


def test_mixed_targets_weigh_what_their_classes_weigh() -> None:
    logits, weights = torch.randn(8, 3), torch.full((3,), 10.0)
    task, mixed = BUILTIN["single-label"], torch.softmax(torch.randn(8, 3), 1)
    plain = task.loss(logits, mixed) / task.weight(mixed)
    weighted = task.loss(logits, mixed, weights=weights) / task.weight(mixed, weights)
    assert float(weighted) == pytest.approx(float(plain))


def test_a_scale_folds_into_the_head_and_back() -> None:
    head = nn.Sequential(nn.Linear(4, 2))
    scale = TargetScale.of(np.array([[1.0, 500.0], [3.0, 900.0]]), 2)
    x = torch.rand(5, 4)
    start = head(x)
    scale.unfold(head)
    assert np.allclose(scale.decode(head(x).detach().numpy()), start.detach().numpy(), atol=1e-3)
    scale.fold(head)
    assert torch.allclose(head(x), start, atol=1e-3)
    assert np.allclose(scale.decode(scale.encode(np.array([[2.0, 700.0]]))), [[2.0, 700.0]])


def test_a_signal_sets_the_flag_that_loops_poll() -> None:
    with stop_signals() as flag:
        flag.poll()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped):
            flag.poll()
    assert (flag.name, flag.exit_code) == ("SIGINT", 130)


def test_a_second_signal_ends_the_process_at_once() -> None:
    kill = "    os.kill(os.getpid(), signal.SIGTERM)\n"
    code = (
        "import os, signal\nfrom zoo.engine.runtime.signals import stop_signals\nwith stop_signals():\n"
        f"{kill}    print('still here', flush=True)\n{kill}    print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (143, "still here\n")


@pytest.mark.usefixtures("drawn")
def test_curves_bear_gaps_and_single_epochs(tmp_path: Path) -> None:
    history = [
        {"epoch": 1, "phase": "probe", "train_loss": float("nan")},
        {"epoch": 2, "phase": "tune", "train_loss": 0.5, "loss": 0.4, "accuracy": 0.9},
    ]
    for count in (1, 2):
        draw_curves(history[:count], tmp_path / f"{count}.png", monitor="accuracy", kept=count - 1)
        assert (tmp_path / f"{count}.png").stat().st_size > 1000


def test_what_libraries_on_a_gpu_say_of_memory_is_understood() -> None:
    for text in ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", "MPS backend out of memory"):
        assert is_out_of_memory(RuntimeError(text))
    assert is_out_of_memory(RuntimeError("FIND was unable to find an engine to execute this computation"))
    assert not is_out_of_memory(RuntimeError("this dataset is out of memory."))


def test_sharded_sgd_is_not_fused() -> None:
    for shard in (False, True):
        config = resolve("full", {"optimizer": "sgd", "shard": shard})
        assert bool(build_optimizer(model(), config, torch.device("cuda")).defaults["fused"]) is not shard


def test_a_remedy_fits_what_the_run_does() -> None:
    table, error = open_data(images(3)), NonFiniteError("loss", 0)
    for lr, options, half, told in (
        (0.1, {}, False, "Lower lr (now 0.1) or give clip_grad=1.0"),
        (0.1, {"clip_grad": 1.0}, True, "Lower lr (now 0.1) or give precision='fp32'"),
        (0.0, {}, False, "Look at the values of these samples"),
    ):
        text = str(not_finite(error, "step 1", [0], table, lr=lr, config=resolve("full", options), half=half))
        assert told in text
        assert ("clip_grad" in text) is (lr > 0 and not options)


def test_a_loss_that_refers_to_a_later_function_has_a_name() -> None:
    margin = 0.5

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return later(logits) + margin

    assert name_of(loss).endswith("loss[0.5]")

    def later(logits: torch.Tensor) -> torch.Tensor:
        return logits
