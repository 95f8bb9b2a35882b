"""Dropout set for a while: which layers, what the head gets, and that all is undone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.engine.tiny import model as make_model
from zoo.errors import LayerGroupError, OptionError
from zoo.tuning import set_dropout

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    """A head without dropout, as a plugin may bring one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(features.mean((2, 3))))


def test_the_dropout_of_backbone_and_head_is_set_and_put_back() -> None:
    model = make_model()
    with set_dropout(model, 0.5) as names:
        assert names == ["backbone.blocks.0.drop", "backbone.blocks.1.drop", "head.dropout"]
        assert {model.get_submodule(name).p for name in names} == {0.5}
    assert [model.get_submodule(name).p for name in names] == [0.2, 0.2, 0.0]


def test_what_enters_the_heads_last_layer_is_dropped_in_training_and_scaled() -> None:
    model = make_model()
    model.freeze(len(model.groups))
    seen: list[torch.Tensor] = []
    with set_dropout(model, 0.5):
        model.head.linear.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        model.train()(X)
        model.eval()(X)
    zeros = seen[0] == 0
    assert 0 < int(zeros.sum()) < zeros.numel()
    torch.testing.assert_close(seen[0][~zeros], 2 * seen[1][~zeros])


def test_a_head_without_dropout_gets_one_in_front_of_its_last_linear_layer_and_loses_it_again() -> None:
    model = make_model()
    model.head = Plain()
    model.freeze(len(model.groups))
    seen: list[torch.Tensor] = []
    with set_dropout(model, 0.5) as names:
        assert names[-1] == "head.last"
        handle = model.head.last.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        model.train()(X)
        model.eval()(X)
        handle.remove()
    zeros = seen[0] == 0
    assert 0 < int(zeros.sum()) < zeros.numel()
    torch.testing.assert_close(seen[0][~zeros], 2 * seen[1][~zeros])
    assert torch.equal(model.train()(X), model.train()(X))
    assert not model.head.last._forward_pre_hooks


def test_zero_turns_every_dropout_off_and_a_frozen_prefix_drops_nothing() -> None:
    model = make_model()
    model.freeze_bn = True
    expected = model.eval()(X)
    with set_dropout(model, 0.0):
        assert torch.equal(model.train()(X), expected)
    model.freeze(len(model.groups))
    model.head.dropout = nn.Identity()
    with set_dropout(model, 0.9):
        assert torch.equal(model.backbone(X), model.backbone(X))


def test_an_exception_inside_undoes_it_too() -> None:
    model = make_model()
    with pytest.raises(KeyError), set_dropout(model, 0.5):
        raise KeyError
    assert model.head.dropout.p == 0.0


def test_nothing_to_set_and_a_number_out_of_range_are_refused() -> None:
    model = make_model()
    for block in model.backbone.blocks:
        block.drop = nn.Identity()
    model.head = nn.Flatten()
    with pytest.raises(LayerGroupError, match="no dropout layer"), set_dropout(model, 0.5):
        pass
    with pytest.raises(OptionError, match="dropout is 1"), set_dropout(make_model(), 1.0):
        pass
