"""Recompute saves activations and changes nothing else: gradients, dropout, statistics, names, copies."""

from __future__ import annotations

import copy

import pytest
import torch

import zoo
from tests.toy import TOY_LAYERS, ToyNet
from zoo.tuning import recompute


def nets() -> tuple[ToyNet, ToyNet, zoo.LayerGroups]:
    torch.manual_seed(0)
    plain = ToyNet(drop_rate=0.5)
    twice = copy.deepcopy(plain)
    return plain, twice, zoo.bind(twice, TOY_LAYERS)


def step(net: torch.nn.Module) -> list[torch.Tensor]:
    torch.manual_seed(1)
    net.train()(torch.randn(4, 3, 8, 8)).square().mean().backward()
    return [parameter.grad for parameter in net.parameters() if parameter.grad is not None]


def test_gradients_dropout_and_statistics_are_those_of_the_plain_network() -> None:
    plain, twice, groups = nets()
    assert recompute(groups) == ["conv1", "bn1", "blocks.0", "blocks.1"]
    assert all(map(torch.equal, step(plain), step(twice)))
    assert all(torch.equal(one, two) for one, two in zip(plain.buffers(), twice.buffers(), strict=True))
    assert plain.state_dict().keys() == twice.state_dict().keys()


def test_only_the_blocks_of_the_slice_run_twice() -> None:
    _, twice, groups = nets()
    calls: list[str] = []
    for name in ("conv1", "blocks.0.conv", "blocks.1.conv"):
        twice.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    assert recompute(groups[2:]) == ["blocks.1"]
    step(twice)
    assert calls == ["conv1", "blocks.0.conv", "blocks.1.conv", "blocks.1.conv"]
    twice.eval()(torch.zeros(1, 3, 8, 8))
    assert len(calls) == 7


def test_a_copy_of_a_recomputed_network_runs_its_own_blocks() -> None:
    _, twice, groups = nets()
    recompute(groups)
    recompute(groups)  # a second time changes nothing
    twin = copy.deepcopy(twice)
    torch.nn.init.zeros_(twice.conv1.weight)
    assert len(step(twin)) == len(list(twin.parameters()))
    assert all(parameter.grad is None for parameter in twice.parameters())


class DenseNet(torch.nn.Module):
    """Layers that read all maps before them from one list, which grows while they run."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(DenseLayer(width) for width in (3, 4, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class DenseLayer(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return torch.relu(self.conv(torch.cat(maps, 1)))


def test_a_list_that_grows_after_a_block_has_read_it_is_recomputed_as_it_was() -> None:
    torch.manual_seed(0)
    plain = DenseNet()
    twice = copy.deepcopy(plain)
    assert recompute(zoo.bind(twice, {"layer": "layers.*"})) == ["layers.0", "layers.1", "layers.2"]
    assert all(map(torch.equal, step(plain), step(twice)))


def test_a_slice_without_blocks_is_an_error() -> None:
    with pytest.raises(zoo.ZooError, match="no block to recompute"):
        recompute(nets()[2][:0])
