"""Medical networks are entered in the middle with the same bits, the three-dimensional ones among them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import zoo
from zoo.tuning.partial_forward import Boundary, open_boundary

pytest.importorskip("zoo_medical", reason="zoo-medical is not installed")

SMALL: dict[str, dict[str, Any]] = {
    "xrv/densenet121-res224-all": {"img_size": 32},
    "monai/resnet10-3d": {"img_size": 16},
    "monai/densenet121-3d": {"img_size": 32},
    "monai/swinunetr-24": {"img_size": 32},
    "monai/vit-small-3d": {"img_size": 32, "num_layers": 3},
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.sweep] * ("swin" in name)) for name in SMALL])
def test_a_medical_network_is_entered_at_three_depths(name: str) -> None:
    model = zoo.get(name, weights=False, **SMALL[name]).adapt(3).eval()
    x, other = (torch.randn(count, *model.inputs.shape) for count in (3, 2))  # type: ignore[union-attr]  # of pixels
    last = len(model.groups) - 1
    for frozen in sorted({1, last // 2 or 1, last}):
        boundary = open_boundary(model.groups, frozen, x)
        assert isinstance(boundary, Boundary), f"{name} behind {frozen} groups: {boundary}"
        with torch.no_grad():
            assert torch.equal(boundary.replay(torch.zeros_like(other), boundary.capture(other)), model.backbone(other))
