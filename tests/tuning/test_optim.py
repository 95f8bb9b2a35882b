import pytest
import torch
from torch import nn

from tests.test_layers import ODD_LAYERS, Odd
from tests.toy import TOY_LAYERS, ToyNet
from zoo.errors import OptionError
from zoo.models.layers import bind
from zoo.tuning import param_groups


def test_every_parameter_enters_the_optimizer_once() -> None:
    model, head = Odd(), nn.Linear(4, 2)
    split = param_groups(bind(model, ODD_LAYERS), head, lr=1.0)
    held = [id(parameter) for group in split for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in [*model.parameters(), *head.parameters()])


def test_rates_fall_geometrically_from_the_head_to_the_input() -> None:
    split = param_groups(bind(ToyNet(depth=2), TOY_LAYERS), nn.Linear(8, 2), lr=1.0, layer_decay=0.5)
    assert {group["group"]: group["lr"] for group in split} == {"stem": 0.125, "stage.0": 0.25, "stage.1": 0.5, "head": 1.0}
    assert split[-1]["group"] == "head"


def test_tensors_of_one_dimension_get_no_weight_decay() -> None:
    split = param_groups(bind(ToyNet(), TOY_LAYERS), nn.Linear(8, 2), lr=1.0, weight_decay=0.1)
    for group in split:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] == 0.1}


def test_frozen_parameters_are_included_so_that_unfreezing_needs_no_new_optimizer() -> None:
    model, head = ToyNet(), nn.Linear(8, 2)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    held = sum(len(group["params"]) for group in param_groups(bind(model, TOY_LAYERS), head, lr=1.0))
    assert held == len([*model.parameters(), *head.parameters()])


def test_torch_keeps_the_names() -> None:
    split = param_groups(bind(ToyNet(), TOY_LAYERS), nn.Linear(8, 2), lr=1.0)
    kept = torch.optim.AdamW(split).state_dict()["param_groups"]
    assert kept[0]["param_names"] == ["backbone.conv1.weight"]


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"lr": float("nan")}, {"layer_decay": 0.0}, {"layer_decay": 1.1}, {"weight_decay": -0.1}])
def test_a_value_out_of_range_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        param_groups(bind(ToyNet(), TOY_LAYERS), nn.Linear(8, 2), **({"lr": 1.0} | wrong))
