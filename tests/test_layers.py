import copy

import pytest
import torch
from torch import nn

import zoo
from tests.toy import TOY_LAYERS, ToyNet
from zoo.cli import main
from zoo.errors import LayerGroupError, UnknownGroupError
from zoo.models.layers import LayerGroups, bind
from zoo.registry.registry import Registry, use_registry


class Odd(nn.Module):
    """A bare parameter, tied weights, a buffer of its own, a dropout that nobody names."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 4))
        self.embed = nn.Linear(4, 4, bias=False)
        self.drop = nn.Dropout(0.5)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.tail = nn.Linear(4, 4, bias=False)
        self.tail.weight = self.embed.weight
        self.register_buffer("scale", torch.ones(1))
        self.absent: nn.Module | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.body(self.drop(self.embed(x + self.token)))) * self.scale


class Tied(nn.Module):
    """10,000 values under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.tail = nn.Linear(100, 100, bias=False), nn.Linear(100, 100, bias=False)
        self.tail.weight = self.embed.weight


ODD_LAYERS = {"stem": ["token", "norm_pre?", "absent?", "embed"], "body": "body", "tail": ["tail", "scale"]}


def names(groups: LayerGroups) -> list[list[str]]:
    return [[name for name, _ in group.named_parameters()] for group in groups]


def test_a_star_makes_one_group_per_child() -> None:
    groups = bind(ToyNet(depth=3), TOY_LAYERS)
    assert groups.names == ("stem", "stage.0", "stage.1", "stage.2")
    assert groups["stage.1"].members == ("blocks.1",)


def test_members_around_a_star_ride_with_the_first_and_the_last_child() -> None:
    groups = bind(ToyNet(depth=3), {"block": ["conv1", "blocks.*", "bn1"]})
    assert [group.members for group in groups] == [("conv1", "blocks.0"), ("blocks.1",), ("blocks.2", "bn1")]


def test_a_question_mark_marks_what_may_be_absent() -> None:
    groups = bind(Odd(), ODD_LAYERS)
    assert groups["stem"].members == ("token", "embed")


def test_every_parameter_is_in_one_group_and_a_tied_one_in_the_first() -> None:
    model = Odd()
    groups = bind(model, ODD_LAYERS)
    assert sorted(name for name, _ in groups.named_parameters()) == sorted(name for name, _ in model.named_parameters())
    assert "tail.weight" not in dict(groups.named_parameters())
    assert dict(groups["tail"].named_buffers()).keys() == {"scale"}


def test_the_command_layers_counts_a_tied_weight_once(capsys: pytest.CaptureFixture[str]) -> None:
    class Plugin:
        @zoo.hookimpl
        def zoo_backbones(self) -> list[zoo.BackboneSpec]:
            fields = {"inputs": zoo.Image(size=4), "features": zoo.Features(dim=4, layout="BD")}
            return [zoo.BackboneSpec(name="odd/tied", build="tests.test_layers:Tied", layers={"stem": "embed", "tail": "tail"}, **fields)]  # type: ignore[arg-type]

    use_registry(Registry(plugins=[Plugin()], files=[]))
    try:
        with pytest.raises(SystemExit):
            main(["layers", "odd/tied"])
    finally:
        use_registry()
    told = capsys.readouterr().out
    assert "2 groups, 10.0k parameters, 10.0k of them train" in told


def test_a_dropout_that_no_group_names_rides_with_the_module_before_it() -> None:
    assert bind(Odd(), ODD_LAYERS)["stem"].strays == ("drop",)


def test_a_group_of_which_every_name_may_be_absent_may_be_absent() -> None:
    assert bind(ToyNet(), {**TOY_LAYERS, "pooler": "pooler?"}).names == bind(ToyNet(), TOY_LAYERS).names


def test_all_faults_are_told_at_once_with_the_nearest_name() -> None:
    layers = {"stem": ["conv", "bn1"], "stage": "blocks.*", "again": "blocks.0.conv", "none": "blocks.0.drop", "two": ["blocks.*", "bn1.*"]}
    with pytest.raises(LayerGroupError) as caught:
        bind(ToyNet(), layers, name="toy/net", plugin="toys 1.0")
    message = str(caught.value)
    for fact in (
        "toys 1.0",
        "'conv'",
        "did you mean 'conv1'",
        "both in 'stage.0' and in 'again'",
        "'none' is empty",
        "conv1.weight",
        "2 names with '*'",
    ):
        assert fact in message
    assert "zoo layers toy/net" in message


def test_a_buffer_without_a_group_is_a_fault() -> None:
    with pytest.raises(LayerGroupError, match="in no group: scale"):
        bind(Odd(), ODD_LAYERS | {"tail": "tail"})


def test_an_absent_submodule_is_told_even_where_it_would_be_starred() -> None:
    with pytest.raises(LayerGroupError, match="did you mean 'blocks'"):
        bind(ToyNet(), {"stem": ["conv1", "bn1"], "stage": "block.*"})


def test_layers_may_be_computed_by_a_function() -> None:
    assert bind(ToyNet(), "tests.test_layers:computed").names == ("all",)


def computed(model: nn.Module) -> dict[str, list[str]]:
    return {"all": [name for name, _ in model.named_children()]}


def test_groups_are_found_by_number_name_and_slice() -> None:
    groups = bind(ToyNet(), TOY_LAYERS)
    assert groups[0] == groups["stem"]
    assert groups[-1].name == "stage.1"
    assert groups[:2].names == groups.upto("stage.0").names == ("stem", "stage.0")
    assert [groups.prefix_length(k) for k in (0, 3, "stem", "stage.1")] == [0, 3, 1, 3]


@pytest.mark.parametrize("k", [-1, 4, "stage1", "stage"])
def test_a_group_that_does_not_exist_is_an_error_that_lists_the_groups(k: int | str) -> None:
    with pytest.raises(UnknownGroupError, match=r"stage\.0"):
        bind(ToyNet(), TOY_LAYERS).prefix_length(k)


def test_parameters_that_appear_later_land_in_the_right_group() -> None:
    model = ToyNet()
    groups = bind(model, TOY_LAYERS)
    model.blocks[1].lora = nn.Linear(2, 2)
    assert "blocks.1.lora.weight" in names(groups)[2]


def test_groups_of_a_copied_model_belong_to_the_copy() -> None:
    groups = bind(ToyNet(), TOY_LAYERS)
    copied = copy.deepcopy(groups)
    assert next(copied.parameters()) is next(copied.model.parameters())
    assert next(copied.parameters()) is not next(groups.parameters())
