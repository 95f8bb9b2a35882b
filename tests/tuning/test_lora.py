"""LoRA targets are exact names of layers that can take an adapter; choosing none is an error."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from zoo.tuning import lora_targets


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), nn.Linear(4, 4)])
        self.attention = nn.MultiheadAttention(4, 2)
        self.again = self.blocks[1]


LAYERS = {"stem": "depthwise", "block": "blocks.*", "attention": "attention", "tied": "again"}


def groups() -> zoo.LayerGroups:
    with torch.device("meta"):
        net = Net()
    del net.again
    return zoo.bind(net, {name: members for name, members in LAYERS.items() if name != "tied"})


def test_targets_are_linear_layers_and_ungrouped_convolutions_by_exact_name() -> None:
    assert lora_targets(groups()) == ["blocks.0.0", "blocks.1"]
    assert lora_targets(groups()[2:3]) == ["blocks.1"]


def test_a_slice_without_a_target_is_an_error_that_names_what_was_refused() -> None:
    with pytest.raises(zoo.ZooError, match=r"stem can take LoRA: grouped convolutions take none \(depthwise\)"):
        lora_targets(groups()[:1])
    with pytest.raises(zoo.ZooError, match="attention can take LoRA"):
        lora_targets(groups()[3:])
    with pytest.raises(zoo.ZooError, match=r"\(none\)"):
        lora_targets(groups()[:0])


def test_the_transposed_linear_layers_of_transformers_are_targets() -> None:
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    net = nn.ModuleDict({"fc": pytorch_utils.Conv1D(8, 4)})
    assert lora_targets(zoo.bind(net, {"all": "fc"})) == ["fc"]
