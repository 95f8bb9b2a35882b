"""Copies of a model for sharding; whole sharded runs are in tests/engine/test_ranks.py."""

from __future__ import annotations

import copy

import torch
from torch import nn

from zoo.tuning.shard import copy_without_values


def test_a_copy_to_be_sharded_takes_no_memory_for_parameters_and_keeps_all_else() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 4), nn.Linear(4, 4)).to(memory_format=torch.channels_last)
    net[3].weight = net[2].weight
    net[0].requires_grad_(False)
    net.register_buffer("table", torch.arange(5), persistent=False)
    before = copy.deepcopy(net.state_dict())
    made = copy_without_values(net)
    assert all(parameter.is_meta and parameter.is_contiguous() for parameter in made.parameters())
    assert made[3].weight is made[2].weight
    assert [one.requires_grad for one in made.parameters()] == [one.requires_grad for one in net.parameters()]
    assert torch.equal(made.table, net.table)
    assert made[1].running_mean is not net[1].running_mean
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
