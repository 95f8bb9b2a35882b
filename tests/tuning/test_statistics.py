"""Running statistics, also those of norms that torch does not know: never moved unseen, whoever keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.engine.tiny import difference, images, model, values
from tests.toy import ToyNet
from zoo.data.open import open_data
from zoo.engine.optim.weight_averaging import refresh_statistics
from zoo.engine.runtime.rollback import Undo
from zoo.models.task_model import TaskModel
from zoo.saved.lora_files import whole_modules
from zoo.tuning.statistics import hold_statistics, keeps_statistics, moving_norms

FULL: dict[str, Any] = {"recipe": "full", "epochs": 2, "batch_size": 8, "lr": 0.01, "augment": "none", "quiet": True, "workers": 0}


class Evo(nn.Module):
    """EvoNorm-B0 in its essence: divides by the larger of two deviations, and keeps a running variance under BatchNorm's name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.momentum = 0.1
        self.v = nn.Parameter(torch.ones(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        running: Any = self.running_var
        if self.training:
            variance = x.var((0, 2, 3))
            running.copy_(running * (1 - self.momentum) + variance.detach() * self.momentum)
        else:
            variance = running
        own = x * self.v[:, None, None] + (x.var((2, 3), keepdim=True) + 1e-5).sqrt()
        return x / torch.maximum((variance + 1e-5).sqrt()[:, None, None], own)


def evo() -> TaskModel:
    """Return a toy model without dropout that has such norms only."""
    made = model()
    made.pretrained = True
    for parent in list(made.backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, Evo(child.num_features))
            elif isinstance(child, nn.Dropout):
                child.p = 0.0
    return made


def running(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in values(net).items() if "running" in name}


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(2), nn.BatchNorm3d(2), nn.InstanceNorm2d(2, track_running_stats=True), Evo(2)], ids=repr)
def test_norms_that_keep_statistics_are_held(norm: nn.Module) -> None:
    assert keeps_statistics(norm)
    parent = nn.Sequential(norm, nn.Dropout()).train()
    hold_statistics(parent)
    assert moving_norms(parent) == []
    assert parent[1].training


def test_held_statistics_stand_still_while_scale_and_shift_train() -> None:
    torch.manual_seed(0)
    net = ToyNet().train()
    hold_statistics(net)
    before = values(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    net(torch.randn(4, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    moved = {name for name, tensor in values(net).items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name, _ in net.named_parameters()}
    assert net.blocks[0].drop.training


@pytest.mark.parametrize("norm", [nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.BatchNorm2d(2, track_running_stats=False)], ids=repr)
def test_norms_without_any_are_no_matter(norm: nn.Module) -> None:
    assert not keeps_statistics(norm)


def test_timms_evonorm_is_one_of_them() -> None:
    layers = pytest.importorskip("timm.layers")
    assert keeps_statistics(layers.EvoNorm2dB0(4))
    assert not keeps_statistics(layers.EvoNorm2dS0(4))


def test_freeze_bn_holds_the_statistics_of_a_whole_run(tmp_path: Path) -> None:
    net = evo()
    before = running(net)
    net.fit(images(), out=tmp_path, freeze_bn=True, **FULL)
    assert difference(running(net), before) == 0
    net.fit(images(), out=tmp_path / "moving", freeze_bn=False, **FULL)
    assert difference(running(net), before) > 0


def test_a_step_that_is_taken_again_moves_them_once(tmp_path: Path) -> None:
    retried, direct, data = evo(), evo(), [open_data(images()), open_data(images(8, seed=1))]

    def scarce(_module: nn.Module, args: Any) -> None:
        if retried.training and len(args[0]) > 4:
            raise MemoryError

    retried.backbone.blocks[1].register_forward_pre_hook(scarce)  # the first norms have moved by then
    retried.fit(*data, out=tmp_path / "retried", freeze_bn=False, **FULL)
    direct.fit(*data, out=tmp_path / "direct", freeze_bn=False, **(FULL | {"batch_size": 4, "accumulate": 2}))
    assert difference(values(retried), values(direct)) <= 1e-6


def test_a_refresh_estimates_them_anew() -> None:
    net = evo()
    batches = [torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    assert refresh_statistics(net, batches) == 3
    expected = torch.stack([net.backbone.conv1(x).var((0, 2, 3)) for x in batches]).mean(0)
    torch.testing.assert_close(net.backbone.bn1.running_var, expected, rtol=1e-4, atol=1e-5)


def test_lora_is_saved_with_the_norms_whose_statistics_may_have_moved() -> None:
    net = evo()
    net.freeze_bn = False
    assert "backbone.bn1" in whole_modules(net)


@pytest.mark.parametrize("bad", [True, False])
def test_a_bad_step_is_undone_without_looking_at_it(bad: bool) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Evo(4)).train()
    undo = Undo(net, torch.device("cpu"))
    undo.look()
    undo.remember()
    before = values(net)
    net(torch.full((2, 3, 4, 4), float("nan") if bad else 3.0))
    after = values(net)
    assert not all(torch.equal(after[name], before[name]) for name in before)
    undo.bring_back_statistics(torch.tensor(bad))
    expected = before if bad else after
    assert all(torch.equal(value, expected[name]) for name, value in values(net).items())
