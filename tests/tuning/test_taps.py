import pytest
import torch
from torch import nn

from tests.toy import TOY_LAYERS, ToyNet
from zoo.errors import LayerGroupError, UnknownGroupError
from zoo.models.layers import bind
from zoo.tuning import taps


def test_a_tap_holds_what_the_group_put_out() -> None:
    model = ToyNet().eval()
    groups = bind(model, TOY_LAYERS)
    x = torch.randn(2, 3, 8, 8)
    with taps(groups, "stem", "stage.1") as outputs:
        whole = model(x)
    assert set(outputs) == {"stem", "stage.1"}
    assert torch.equal(outputs["stage.1"], whole)
    assert torch.equal(outputs["stem"], model.bn1(model.conv1(x)))


def test_all_groups_are_tapped_where_none_is_named_even_inside_a_module_list() -> None:
    model = ToyNet()
    groups = bind(model, {"stem": ["conv1", "bn1"], "blocks": "blocks"})
    with taps(groups) as outputs:
        model(torch.randn(2, 3, 8, 8))
    assert list(outputs) == ["stem", "blocks"]


def test_nothing_listens_after_the_context() -> None:
    model = ToyNet()
    with taps(bind(model, TOY_LAYERS)):
        pass
    assert not any(module._forward_hooks for module in model.modules())


def test_an_unknown_group_and_a_group_without_output_are_refused() -> None:
    model = nn.Module()
    model.token = nn.Parameter(torch.zeros(1))
    with pytest.raises(LayerGroupError, match="token"), taps(bind(model, {"stem": "token"})):
        pass
    with pytest.raises(UnknownGroupError, match="did you mean 'stem'"), taps(bind(ToyNet(), TOY_LAYERS), "stm"):
        pass
