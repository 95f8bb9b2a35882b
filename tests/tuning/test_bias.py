"""Bias-only training (BitFit) moves the biases of the open groups and the head, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from tests.tuning.adapted import FAMILIES, moved, snapshot, steps, toy
from zoo.errors import LayerGroupError, OptionError
from zoo.registry.registry import use_registry
from zoo.tuning import freeze_prefix

pytestmark = pytest.mark.usefixtures("toys")


def biases(model: zoo.TaskModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if name.rpartition(".")[2].endswith("bias") and parameter.ndim == 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_two_steps_move_biases_and_the_head_only(family: str, tmp_path: Path) -> None:
    use_registry()  # with the installed plugins
    model = FAMILIES[family](tmp_path)
    model.freeze_bn, model.trains = True, "bias"
    model.unfreeze()
    before = snapshot(model)
    wanted = biases(model) | {f"head.{name}" for name, _ in model.head.named_parameters()}
    names = moved(steps(model), before)
    assert names <= wanted
    # The key's bias shifts all scores of a row alike, so it gets no gradient worth the name; it may or may not move.
    assert not [name for name in wanted - names if "key" not in name]
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name not in wanted)


def test_the_frozen_prefix_and_all_groups_can_be_frozen_as_ever() -> None:
    model = toy()
    model.trains = "bias"
    for k, wanted in ((1, {"backbone.blocks.0.bn.bias", "backbone.blocks.1.bn.bias"}), (3, set())):
        model.freeze(k)
        assert {name for name, parameter in model.backbone.named_parameters(prefix="backbone") if parameter.requires_grad} == wanted
        assert all(parameter.requires_grad for parameter in model.head.parameters())
    model.trains = "all"
    model.unfreeze()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_statistics_and_dropout_go_on_as_for_other_training() -> None:
    model = toy()
    model.trains = "bias"
    model.freeze(1)
    before = snapshot(model)
    names = moved(steps(model), before)
    assert {name for name in names if "running" in name} == {
        f"backbone.blocks.{block}.bn.running_{kind}" for block in (0, 1) for kind in ("mean", "var")
    }
    assert model.train().backbone.blocks[0].drop.training


def test_choosing_nothing_is_an_error_that_names_the_groups_and_changes_nothing() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
    groups = zoo.bind(net, {"first": "0", "second": "1"})
    freeze_prefix(groups, 0, "bias")
    before = [parameter.requires_grad for parameter in net.parameters()]
    with pytest.raises(LayerGroupError, match="trains='bias' selects no parameter of the groups second"):
        freeze_prefix(groups, 1, "bias")
    with pytest.raises(OptionError, match=r"trains='biases' .*did you mean 'bias'"):
        freeze_prefix(groups, 0, "biases")
    assert [parameter.requires_grad for parameter in net.parameters()] == before == [False, True, False]
    freeze_prefix(groups, 2, "bias")


class Odd(nn.Module):
    """Biases under names of their own, and a table that only sounds like one."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)
        self.q_bias = nn.Parameter(torch.zeros(4))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.relative_bias = nn.Parameter(torch.zeros(2, 9))


def test_biases_under_other_names_count_and_tables_do_not() -> None:
    net = Odd()
    groups = zoo.bind(net, {"all": ["attention", "q_bias", "relative_position_bias_table", "relative_bias"]})
    freeze_prefix(groups, 0, "bias")
    assert {name for name, parameter in net.named_parameters() if parameter.requires_grad} == {
        "attention.in_proj_bias",
        "attention.out_proj.bias",
        "q_bias",
    }
