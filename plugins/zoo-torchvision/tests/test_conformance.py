"""The public kit: a small architecture of each family where that is cheap, the others in the sweep."""

from __future__ import annotations

import pytest

from zoo.testing import backbone_checks, check_backbone

CHEAP = {"resnet18": 32, "shufflenet_v2_x0_5": 32, "squeezenet1_1": 32}
HEAVY = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 64,
    "googlenet": 32,
    "inception_v3": 80,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_large": 32,
    "mobilenet_v3_small": 32,
    "regnet_y_400mf": 32,
    "resnext50_32x4d": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11": 32,
    "vgg11_bn": 32,
    "vit_b_32": 224,
    "wide_resnet50_2": 32,
}


@pytest.mark.parametrize("name", CHEAP)
def test_a_small_architecture_conforms(name: str) -> None:
    assert check_backbone(f"torchvision/{name}", size=(CHEAP[name], CHEAP[name])) == len(backbone_checks())


@pytest.mark.sweep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", HEAVY)
def test_an_architecture_of_every_family_conforms(name: str) -> None:
    assert check_backbone(f"torchvision/{name}", size=(HEAVY[name], HEAVY[name])) == len(backbone_checks())
