"""Inputs of a size that a network cannot read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.engine.runtime.input_sizes import explained_size
from zoo.errors import OptionError


class Narrowing(nn.Module):
    """Two convolutions without padding: inputs need 13 values a side."""

    def __init__(self, dimensions: int = 2) -> None:
        super().__init__()
        conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
        self.stem, self.body = conv(1, 4, 5, stride=2), conv(4, 4, 5, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(self.stem(x)))


def network(size: int, dimensions: int = 2) -> Any:
    inputs = zoo.Image(size=size, mean=(0.0,), std=(1.0,)) if dimensions == 2 else zoo.Volume(size=size, spacing=None)
    layout = "BCHW" if dimensions == 2 else "BCDHW"
    return zoo.wrap(Narrowing(dimensions), inputs=inputs, features=zoo.Features(dim=4, layout=layout)).adapt(2)


def data(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (8, *shape), dtype=np.uint8), [0, 1] * 4


OPTIONS: dict[str, Any] = {"epochs": 1, "workers": 0, "quiet": True, "batch_size": 4, "valid": False}


@pytest.mark.parametrize("recipe", ["linear-probe", "full"])
def test_training_on_images_that_are_too_small_names_a_size_that_works(recipe: str, tmp_path: Path) -> None:
    net = network(32)
    with pytest.raises(OptionError, match=r"cannot read images of 8 x 8 pixels \(.*\); 16 a side works: image_size=16") as caught:
        net.fit(data(16, 16), image_size=8, recipe=recipe, out=tmp_path / "run", **OPTIONS)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert net.fit(data(16, 16), image_size=16, recipe=recipe, out=tmp_path / "again", **OPTIONS).history


def test_prediction_names_it_too_and_leaves_modes_as_they_were() -> None:
    net = network(32).train()
    with pytest.raises(OptionError, match=r"8 x 8 pixels.*image_size=16"):
        net.predict(data(16, 16)[0], image_size=8, workers=0)
    assert net.training
    assert net.backbone.training


def test_a_network_of_ones_own_for_volumes_is_to_be_wrapped_with_another_size() -> None:
    with pytest.raises(OptionError, match=r"volumes of 8 x 8 x 8 voxels.*16 a side works: wrap it with inputs=zoo\.Volume\(size=16, …\)"):
        network(8, 3).predict([np.zeros((9, 9, 9))], workers=0)


def test_an_error_of_another_cause_stays_as_it_is() -> None:
    net = network(16)
    net.backbone.register_forward_hook(lambda *_: (_ for _ in ()).throw(ValueError("of my own")))
    with pytest.raises(ValueError, match="of my own"):
        net.predict(data(16, 16)[0], workers=0)


@pytest.mark.parametrize(("dimensions", "side", "largest"), [(3, 8, 32), (3, 64, 128), (2, 32, 128), (2, 224, 512)])
def test_only_sizes_near_the_one_in_use_are_tried_and_no_huge_volume(dimensions: int, side: int, largest: int) -> None:
    net, tried = network(side, dimensions), []

    def fails(_: Any, arguments: Any) -> None:
        tried.append(max(arguments[0].shape[2:]))
        raise ValueError("of my own")

    net.backbone.register_forward_pre_hook(fails)
    with pytest.raises(ValueError, match="of my own"), explained_size(net):
        net(torch.zeros(2, 1, *[side] * dimensions))
    assert max(tried) == largest


def test_the_option_for_images_points_to_the_one_for_volumes() -> None:
    with pytest.raises(OptionError, match=r"reads volumes; zoo\.get\('own/narrowing', img_size=8\)"):
        network(16, 3).predict([np.zeros((9, 9, 9))], image_size=8, workers=0)
