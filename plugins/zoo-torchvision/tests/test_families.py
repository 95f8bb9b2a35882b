"""Of every family: features give torchvision's own logits, and the layer groups are a partition that runs in order."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
import zoo_torchvision
from networks import ARCHITECTURES, SMALL, images, small
from torch import Tensor, nn
from torchvision import models
from zoo_torchvision.build import backbone_of, family_of
from zoo_torchvision.families import FAMILIES, layers

import zoo
from zoo.testing import execution_order

LISTED = {spec.name: spec for spec in zoo_torchvision.zoo_backbones()}
ARCHITECTURES_LISTED = [spec for name, spec in LISTED.items() if "." not in name]
LARGE = ("VGG",)  # 100 million parameters in its hidden layers


def pooled(features: Tensor) -> Tensor:
    """The features as the head's default pooling gives them."""
    return features.mean((2, 3)) if features.ndim == 4 else features[:, 0] if features.ndim == 3 else features


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.sweep] * (name in LARGE)) for name in SMALL])
def test_features_and_a_linear_layer_give_torchvisions_logits(name: str) -> None:
    home, family = small(name), FAMILIES[name.partition(" ")[0]]
    backbone = backbone_of(copy.deepcopy(home)).eval()
    with torch.no_grad():
        features, logits = backbone(images(name)), home(images(name))
        if family.classifier:
            linear = home.get_submodule(family.classifier)
            assert isinstance(linear, nn.Linear)
            assert (linear.bias is not None) == family.bias
            torch.testing.assert_close(F.linear(pooled(features), linear.weight, linear.bias), logits)
        else:
            torch.testing.assert_close(home.classifier(features).flatten(1), logits)
    assert len(features.shape) == len(family.layout)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in LARGE])
def test_a_backbone_has_torchvisions_names_and_its_groups_are_a_partition_in_order(name: str) -> None:
    home = small(name)
    backbone = backbone_of(copy.deepcopy(home))
    own = set(home.state_dict())
    assert set(backbone.state_dict()) <= own
    left = {key.rpartition(".")[0] for key in own - set(backbone.state_dict()) if not key.lower().startswith("aux")}
    assert len(left) == 1, "one layer is left out, besides auxiliary heads"
    family = name.partition(" ")[0]
    groups = zoo.bind(backbone, layers(ARCHITECTURES.get(family, ""), family))
    assert execution_order(groups, images(name)) == list(groups.names)


def check(spec: zoo.BackboneSpec) -> list[str]:
    """Build an architecture without values; return what is not as declared."""
    with torch.device("cpu" if "regnet" in spec.name else "meta"):  # RegNet computes its widths with tensors
        backbone = zoo.get(spec.name, weights=False).build()
    groups, faults = zoo.bind(backbone.to("meta").eval(), spec.layers), []
    x = torch.zeros(1, *spec.inputs.shape, device="meta")  # type: ignore[union-attr]  # an image
    if (order := execution_order(groups, x)) != list(groups.names):
        faults.append(f"{spec.name} runs as {order}")
    if sum(parameter.numel() for parameter in backbone.parameters()) != spec.parameters:
        faults.append(f"{spec.name} has other parameters than {spec.parameters}")
    with torch.no_grad():
        shape = backbone(x).shape
    if len(shape) != len(spec.features.layout) or shape[1 if len(shape) == 4 else -1] != spec.features.dim:
        faults.append(f"{spec.name}: {tuple(shape)} is not {spec.features}")
    return faults


def smallest(family: str) -> zoo.BackboneSpec:
    members = [spec for spec in ARCHITECTURES_LISTED if family_of(spec.options["architecture"]) == family]
    return min(members, key=lambda spec: spec.macs)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_smallest_architecture_of_each_family_is_as_declared(family: str) -> None:
    assert not check(smallest(family))


@pytest.mark.sweep
@pytest.mark.timeout(900)
def test_every_architecture_is_as_declared() -> None:
    faults = [fault for spec in ARCHITECTURES_LISTED for fault in check(spec)]
    assert not faults, json.dumps(faults, indent=1)
    assert len(ARCHITECTURES_LISTED) == len(models.list_models(module=models))


@pytest.mark.parametrize("name", ["GoogLeNet", "Inception3"])
def test_the_input_is_transformed_bit_for_bit_as_torchvision_does_it(name: str) -> None:
    home, x = small(name), images(name)
    assert torch.equal(backbone_of(home).transform_input(x), home._transform_input(x))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_are_transformed_from_the_declared_range(channels: int) -> None:
    backbone = zoo.get("torchvision/googlenet", weights=False, in_chans=channels)
    inputs = backbone.spec.inputs
    assert isinstance(inputs, zoo.Image)
    x = torch.rand(1, channels, 8, 8)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (inputs.mean, inputs.std))
    torch.testing.assert_close(backbone.build().transform_input((x - mean) / std), (x - 0.5) / 0.5)
