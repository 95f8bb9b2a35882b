"""Entering a backbone in the middle: the same bits, gradients from the boundary on, and a word where it does not work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import zoo
from tests.toy import TOY_LAYERS, ToyNet
from tests.toy_text import ToyText
from zoo.models.layers import LayerGroups, bind
from zoo.tuning.partial_forward import Boundary, open_boundary

TEXT_LAYERS = {"embeddings": "embeddings", "layer": "layers.*", "pooler": "pooler?"}


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def texts(count: int = 4, tokens: int = 7) -> dict[str, torch.Tensor]:
    mask = torch.ones(count, tokens, dtype=torch.int64)
    mask[1, 4:] = 0
    return {"input_ids": torch.randint(1, 99, (count, tokens), generator=torch.Generator().manual_seed(0)), "attention_mask": mask}


def opened(groups: LayerGroups, frozen: int, x: Any) -> Boundary:
    found = open_boundary(groups, frozen, x)
    assert isinstance(found, Boundary), found
    return found


@pytest.mark.parametrize("frozen", [1, 2])
def test_the_frozen_part_is_not_computed_again(frozen: int) -> None:
    torch.manual_seed(0)
    groups = bind(ToyNet().eval(), TOY_LAYERS)
    boundary = opened(groups, frozen, images())
    stored = boundary.capture(images(6))
    calls: list[str] = []
    for name, module in groups.model.named_modules():
        module.register_forward_hook(lambda *_args, name=name: calls.append(name))
    features = boundary.replay(images(6), stored)
    assert torch.equal(features, groups.model(images(6)))
    for parameter in groups[0].parameters():
        parameter.data.add_(1.0)  # what is replayed knows nothing of it
    assert torch.equal(boundary.replay(images(6), stored), features)


def test_gradients_of_what_trains_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    groups = bind(ToyNet(drop_rate=0.0).eval(), TOY_LAYERS)
    boundary = opened(groups, 2, images())
    x, trained = images(), list(groups[2:].parameters())
    whole = torch.autograd.grad(groups.model(x).square().sum(), trained)
    part = torch.autograd.grad(boundary.replay(x, boundary.capture(x)).square().sum(), trained)
    assert all(torch.equal(one, other) for one, other in zip(whole, part, strict=True))


def test_texts_of_another_length_enter_in_the_middle_as_well() -> None:
    torch.manual_seed(0)
    groups = bind(ToyText(16, 3, pooler=True, dropout=0.0).eval(), TEXT_LAYERS)
    boundary = opened(groups, 2, texts())
    longer = texts(5, 11)
    with torch.no_grad():
        assert torch.equal(boundary.replay(longer, boundary.capture(longer)), groups.model(longer))


def test_the_model_is_left_as_it_was() -> None:
    groups = bind(ToyNet().eval(), TOY_LAYERS)
    boundary = opened(groups, 1, images())
    boundary.replay(images(), boundary.capture(images()))
    assert not any("forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks for module in groups.model.modules())


class Skips(nn.Module):
    """A U: what the first layer puts out is needed again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle, self.up = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        early = self.down(x)
        return self.up(self.middle(early) + early)


def test_a_model_that_cannot_be_entered_says_so() -> None:
    groups = bind(Skips().eval(), {"down": "down", "middle": "middle", "up": "up"})
    assert open_boundary(groups, 1, images()) == "the features differ when it is entered in the middle"
    opened(groups, 2, images())


@pytest.mark.parametrize("name", ["zoo/glyphnet"])
def test_real_backbones_can_be_entered_everywhere(name: str) -> None:
    groups = zoo.get(name).adapt(2).eval().groups
    x = torch.randn(3, *zoo.get(name).spec.inputs.shape)  # type: ignore[union-attr]  # images
    for frozen in range(1, len(groups)):
        opened(groups, frozen, x)


class Branches(nn.Module):
    """Two branches beside each other, of which the second runs, or reads the input, behind the boundary."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.top_left, self.top_right = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.top_left(self.left(x)) + self.top_right(self.right(x))


@pytest.mark.parametrize("low", [["left", "right"], ["left"]])
def test_a_branch_that_needs_the_input_behind_the_boundary_is_not_entered_in_the_middle(low: list[str]) -> None:
    high = ["top_left", "top_right", *({"left", "right"} - set(low))]
    groups = bind(Branches().eval(), {"low": low, "high": high}, name="toy/branches")
    assert open_boundary(groups, 1, torch.randn(4, 6)) == "the features differ when it is entered in the middle"
