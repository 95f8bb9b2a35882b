"""What zoo saves, torchvision opens with equal logits by ``load_state_dict``; where it cannot, the reason is told."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchvision import models
from zoo_torchvision.home import export

import zoo
from zoo.testing import randomise

OPENED = {
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "shufflenet_v2_x0_5": 32,
    "alexnet": 64,
    "convnext_tiny": 32,
    "maxvit_t": 224,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vit_b_32": 64,
    "vgg11": 32,
}
HEAVY = ("alexnet", "convnext_tiny", "maxvit_t", "swin_t", "swin_v2_t", "vit_b_32", "vgg11")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.sweep] * (name in HEAVY)) for name in OPENED])
def test_torchvision_opens_what_zoo_saved_and_gives_equal_logits(name: str, tmp_path: Path) -> None:
    sized = {"img_size": OPENED[name]} if name.startswith("vit") else {}
    bias = {"bias": False} if name == "maxvit_t" else {}
    model = zoo.get(f"torchvision/{name}", weights=False, **sized).adapt(3, labels=["ant", "bee", "cow"], **bias)
    randomise(model).save(tmp_path / "saved")
    told = json.loads((tmp_path / "saved" / "config.json").read_text())["torchvision"]
    assert told["architecture"] == name
    opened = models.get_model(name, **told["arguments"]).eval()
    state = OrderedDict(load_file(tmp_path / "saved" / "model.safetensors"))
    if name.startswith("mnasnet"):  # the only one that asks for the version, which safetensors do not hold
        state._metadata = opened.state_dict()._metadata  # type: ignore[attr-defined]  # as torch writes it
    opened.load_state_dict(state)
    x = torch.randn(2, 3, OPENED[name], OPENED[name])
    with torch.no_grad():
        torch.testing.assert_close(opened(x), model(x))
        assert torch.equal(zoo.load(tmp_path / "saved")(x), model(x))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("shufflenet_v2_x0_5", {"head": "mlp"}, "its head is 'mlp'"),
        ("shufflenet_v2_x0_5", {"pool": "max"}, "it pools by 'max', torchvision by 'avg'"),
        ("shufflenet_v2_x0_5", {"in_chans": 1}, "it reads 1 channels"),
        ("squeezenet1_1", {}, "a convolution and an activation"),
        ("shufflenet_v2_x0_5", {"bias": False}, r"adapt(…, bias=True)"),
        ("maxvit_t", {}, "no bias: adapt(…, bias=False)"),
    ],
)
def test_what_torchvision_cannot_express_is_told(name: str, options: dict[str, Any], reason: str) -> None:
    told = export(zoo.get(f"torchvision/{name}", weights=False).adapt(3, **options))
    assert isinstance(told, str)
    assert reason in told


def test_all_reasons_are_told_at_once() -> None:
    told = export(zoo.get("torchvision/shufflenet_v2_x0_5", weights=False).adapt(3, head="mlp", pool="max", in_chans=1))
    assert isinstance(told, str)
    assert told.count(";") == 3


def test_options_travel(tmp_path: Path) -> None:
    model = randomise(zoo.get("torchvision/mobilenet_v2", weights=False, width_mult=0.25).adapt(2)).save(tmp_path / "saved")
    told = json.loads((tmp_path / "saved" / "config.json").read_text())["torchvision"]
    assert told["arguments"] == {"num_classes": 2, "width_mult": 0.25}
    models.get_model("mobilenet_v2", **told["arguments"]).load_state_dict(load_file(model / "model.safetensors"))
