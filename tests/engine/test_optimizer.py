"""Every optimizer there is: found by name, built over the groups, resumed to the last bit."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.engine.test_resume import tables
from tests.engine.tiny import difference, model, timeless, values
from zoo.engine.optim.nonfinite import Guard
from zoo.engine.optim.optimizer import build_optimizer, check_optimizer, optimizer_names, takes_found_inf
from zoo.engine.optim.optimizer_state import optimizer_tensors, restore_optimizer
from zoo.engine.options.resolve import resolve
from zoo.engine.rundir.checkpoint import Checkpoint, read_newest, write_checkpoint
from zoo.engine.train import trainer
from zoo.errors import InterruptedRunError, OptionError, SavedModelError, TrainingError

CPU = torch.device("cpu")
HAS_TIMM = importlib.util.find_spec("timm") is not None
TORCH = ["adamw", "adam", "sgd", "nadam", "radam", "rmsprop", "adagrad", "adadelta", "adamax", "adafactor", "asgd"]
# One for each way in which timm's keep their state: counters in the groups, plain numbers, two kinds of parameters, none.
TIMM = ["lamb", "adan", "madgrad", "laprop", "muon", "lion", "nadamlegacy", "adafactorbv", "lars"]
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "rmsprop": {"momentum": 0.9, "centered": True},
    "adamw": {"amsgrad": True},
}
EVERY = [*TORCH, *(pytest.param(name, marks=pytest.mark.skipif(not HAS_TIMM, reason="timm is not installed")) for name in TIMM)]


def built(name: str, net: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return build_optimizer(net, resolve("full", {"optimizer": name, "optimizer_options": options}), CPU)  # type: ignore[arg-type]


def train(net: Any, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Take some steps, the stem frozen in the first two."""
    for step in steps:
        torch.manual_seed(step)  # the toy has dropout
        net.freeze(1 if step < 2 else 0).train()
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (step + 1)
        net(torch.randn(4, 3, 16, 16)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", EVERY)
def test_an_optimizer_resumed_from_disk_is_bit_equal_to_one_that_never_stopped(name: str, tmp_path: Path) -> None:
    nets = [model(), model(), model()]
    whole, cut, resumed = (built(name, net, **OPTIONS.get(name, {})) for net in nets)
    train(nets[0], whole, range(6))
    train(nets[1], cut, range(3))
    write_checkpoint(tmp_path, 3, Checkpoint({"model": nets[1].state_dict(), "optimizer": optimizer_tensors(cut)}, {}))
    read = read_newest(tmp_path)
    assert read is not None
    nets[2].load_state_dict(read[0].tensors["model"])
    restore_optimizer(resumed, read[0].tensors["optimizer"])
    train(nets[2], resumed, range(3, 6))
    assert difference(values(nets[2]), values(nets[0])) == 0.0
    ours, theirs = optimizer_tensors(resumed), optimizer_tensors(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_only_the_state_makes_the_resumed_one_equal() -> None:
    nets = [model(), model()]
    for net, state in zip(nets, (True, False), strict=True):
        optimizer = built("sgd", net, momentum=0.9)
        train(net, optimizer, range(3))
        fresh = built("sgd", net, momentum=0.9)
        restore_optimizer(fresh, optimizer_tensors(optimizer) if state else {})
        train(net, fresh, range(3, 6))
    assert difference(values(nets[0]), values(nets[1])) > 0


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adamw"},
        {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}},
        {"optimizer": "rmsprop"},
        pytest.param({"optimizer": "lamb"}, marks=pytest.mark.skipif(not HAS_TIMM, reason="timm is not installed")),
    ],
    ids=lambda options: options["optimizer"],
)
def test_a_run_resumed_with_any_optimizer_is_bit_equal_to_one_that_never_stopped(options: dict[str, Any], tmp_path: Path) -> None:
    def run(out: Path, reads: int = 0, **more: Any) -> Any:
        net = model(head="mlp", hidden=4)
        settings = {"recipe": "full", "epochs": 3, "batch_size": 8, "lr": 1e-2, "quiet": True, "augment": "none"}
        return net, net.fit(*tables(reads), out=out, **settings, **options, **more)

    expected, whole = run(tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        run(tmp_path / "cut", reads=36)
    net, resumed = run(tmp_path / "cut", resume=True)
    assert difference(values(net), values(expected)) == 0.0
    assert timeless(resumed.history) == timeless(whole.history)


class Odd(torch.optim.Optimizer):
    """Keeps everything that an optimizer might keep."""

    def __init__(self, params: Any, odd: Any = None) -> None:
        super().__init__(params, {"lr": 1e-3})
        self.odd = odd

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # torch's has two overloads
        self.state["total"] = 7  # type: ignore[index]  # timm's Madgrad kept a count beside the parameters
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
            for parameter in group["params"]:
                rows = [torch.arange(3), parameter.detach().sum(1)]
                self.state[parameter] = {"none": None, "count": 3, "rate": 0.1, "on": True, "shapes": [[1, 2], []], "rows": rows}
                if self.odd is not None:
                    self.state[parameter]["odd"] = self.odd


def test_none_numbers_lists_and_what_belongs_to_a_group_come_back() -> None:
    parameter = nn.Parameter(torch.ones(2, 3))
    one, other = (Odd([{"params": [parameter], "param_names": ["w"]}]) for _ in range(2))
    one.step()
    one.step()
    restore_optimizer(other, {name: tensor.clone() for name, tensor in optimizer_tensors(one).items()})
    assert other.param_groups[0]["k"] == 2
    assert other.state["total"] == 7  # type: ignore[index]
    ours, theirs = dict(other.state[parameter]), dict(one.state[parameter])
    assert all(torch.equal(a, b) for a, b in zip(ours.pop("rows"), theirs.pop("rows"), strict=True))
    assert ours == theirs


def test_what_no_checkpoint_can_hold_is_told() -> None:
    optimizer = Odd([{"params": [nn.Parameter(torch.ones(1, 1))], "param_names": ["w"]}], odd=object())
    optimizer.step()
    with pytest.raises(TrainingError, match="Odd keeps 'w:odd' as object"):
        optimizer_tensors(optimizer)


def test_restoring_forgets_what_was_there_and_a_refusal_changes_nothing() -> None:
    net = model()
    optimizer = built("adamw", net)
    start = optimizer_tensors(optimizer)
    train(net, optimizer, range(3))
    held = optimizer_tensors(optimizer)
    with pytest.raises(SavedModelError, match=r"head\.other"):
        restore_optimizer(optimizer, {"head.other:step": torch.zeros(())})
    assert optimizer_tensors(optimizer).keys() == held.keys()
    restore_optimizer(optimizer, start)
    assert not optimizer_tensors(optimizer)


def test_the_options_reach_the_optimizer_and_the_rates_the_groups() -> None:
    net = model()
    optimizer = built("sgd", net, momentum=0.8, nesterov=True)
    assert type(optimizer) is torch.optim.SGD
    assert {(group["momentum"], group["nesterov"]) for group in optimizer.param_groups} == {(0.8, True)}
    assert built("adam", net, betas=[0.8, 0.9]).param_groups[0]["betas"] == (0.8, 0.9)
    settings = {"optimizer": "rmsprop", "lr": 0.5, "layer_decay": 0.5, "weight_decay": 0.1}
    groups = build_optimizer(net, resolve("full", settings), CPU).param_groups
    assert [group["lr"] for group in groups if group["group"] == "head"] == [0.5, 0.5]
    assert {group["lr"] for group in groups if group["group"] == "stem"} == {0.5 * 0.5 ** len(net.groups)}
    assert {group["weight_decay"] for group in groups} == {0.1, 0.0}


@pytest.mark.skipif(not HAS_TIMM, reason="timm is not installed")
def test_timms_are_found_where_torch_has_none_of_that_name() -> None:
    import timm.optim

    assert type(built("lion", model())) is timm.optim.Lion
    assert type(built("Lamb", model(), betas=[0.8, 0.99])) is timm.optim.Lamb
    assert type(built("radam", model())) is torch.optim.RAdam
    assert {"adamw", "lamb"} <= set(optimizer_names())
    assert not {"kron", "adahessian", "bnbadam", "fusedadam", "lbfgs", "sparseadam", "rprop"} & set(optimizer_names())


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("adamv", {}, "no optimizer 'adamv'.*did you mean 'adam"),
        ("lbfgs", {}, "no optimizer 'lbfgs'"),
        ("sgd", {"momentun": 0.9, "netserov": True}, "momentun.*'momentum'.*netserov.*'nesterov'"),
        ("sgd", {"lr": 0.1, "weight_decay": 0.0}, "lr, weight_decay; give them to the run"),
        ("adamw", {"fused": True}, "no option 'fused'"),
        ("adamw", {"betas": [2.0, 0.9]}, "betas.*2.0"),
        ("adamw", {"betas": [0.9]}, "refuses.*betas"),
        ("adamw", {"eps": "small"}, "refuses.*small"),
        ("sgd", {"nesterov": True}, "Nesterov momentum requires"),
    ],
)
def test_a_wrong_optimizer_or_option_is_told_before_the_run(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        check_optimizer(name, options)


@pytest.mark.parametrize("name", EVERY)
def test_checking_an_optimizer_draws_nothing_random(name: str) -> None:
    before = torch.get_rng_state()
    check_optimizer(name, OPTIONS.get(name, {}))
    assert torch.equal(before, torch.get_rng_state())


FUSED: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1, fused=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, fused=True),
}


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_optimizer_that_takes_found_inf_skips_its_update(name: str) -> None:
    layer = nn.Linear(2, 1)
    optimizer = FUSED[name](layer.parameters())
    assert takes_found_inf(optimizer)
    start = layer.weight.detach().clone()
    for bad, same in ((1.0, True), (0.0, False)):
        layer(torch.full((1, 2), float("nan") if bad else 1.0)).sum().backward()
        optimizer.found_inf = torch.tensor(bad)  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad()
        assert torch.equal(layer.weight, start) == same
        assert bool(torch.isfinite(layer.weight).all())


@pytest.mark.parametrize("name", EVERY)
def test_an_optimizer_that_is_not_fused_is_not_trusted_to_skip_an_update(name: str) -> None:
    assert not takes_found_inf(built(name, model()))


def test_a_guard_that_is_not_deferred_stops_a_plain_optimizer_before_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Guard] = []

    class Seen(Guard):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(trainer, "Guard", Seen)
    net = model()
    with pytest.raises(TrainingError, match="not finite in epoch"):
        net.fit(*tables(), out=tmp_path, quiet=True, recipe="full", epochs=3, lr=1e30, warmup=0.0, optimizer="sgd")
    assert not made[0].deferred
    assert all(bool(torch.isfinite(parameter).all()) for parameter in net.parameters())


def test_an_option_of_a_wrong_shape_is_told_with_the_usual_one() -> None:
    with pytest.raises(OptionError, match=r"'adamw' refuses .*IndexError: .*without them it has {'betas': \(0.9, 0.999\)}"):
        check_optimizer("adamw", {"betas": [0.9]})
    with pytest.raises(OptionError, match=r"\(Invalid beta parameter at index 0: 7"):
        check_optimizer("adamw", {"betas": [7, 0.9]})


def test_counters_stay_on_the_cpu_and_moments_take_the_layout_of_their_parameter() -> None:
    net = model().to(memory_format=torch.channels_last)
    optimizer = built("nadam", net)
    train(net, optimizer, range(3))
    state: dict[str, Tensor] = {
        name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in optimizer_tensors(optimizer).items()
    }
    restore_optimizer(optimizer, state)
    for parameter, held in optimizer.state.items():
        assert held["exp_avg"].stride() == parameter.stride()
        assert held["step"].device == held["mu_product"].device == CPU
