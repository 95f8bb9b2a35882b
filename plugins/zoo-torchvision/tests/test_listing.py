"""The catalogue says what torchvision's enums say, and is listed without torch or torchvision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import zoo_torchvision
from torchvision import models
from zoo_torchvision.catalogue import table

import zoo

LEFT_OUT = ("vgg16.imagenet1k_features",)
LISTED = {spec.name: spec for spec in zoo_torchvision.zoo_backbones()}
SAME_VERSION = torchvision.__version__.partition("+")[0] == table()["torchvision"]
MEMBERS: dict[str, Any] = {
    f"{name}.{member.name.lower()}": member for name in models.list_models(module=models) for member in models.get_model_weights(name)
}
PUBLISHED = {name: member for name, member in MEMBERS.items() if name not in LEFT_OUT}


@pytest.mark.parametrize("name", ["efficientnet_b6", "efficientnet_b7"])
def test_a_short_name_of_which_only_torchvision_has_weights_is_torchvisions(name: str) -> None:
    spec = zoo.get(name).spec
    assert spec.name == f"torchvision/{name}.imagenet1k_v1"
    assert spec.weights == LISTED[spec.name].weights


def test_listing_imports_neither_torchvision_nor_torch() -> None:
    code = "import sys, zoo_torchvision; print(len(list(zoo_torchvision.zoo_backbones())), {'torchvision', 'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{len(LISTED)} set()"


@pytest.mark.skipif(not SAME_VERSION, reason=f"the catalogue is of torchvision {table()['torchvision']}")
def test_every_architecture_and_every_member_of_its_enum_is_listed_and_none_is_invented() -> None:
    names = [spec.name for spec in zoo_torchvision.zoo_backbones()]
    assert len(names) == len(LISTED)
    assert LISTED.keys() == {f"torchvision/{name}" for name in (*models.list_models(module=models), *PUBLISHED)}


@pytest.mark.skipif(not SAME_VERSION, reason=f"the catalogue is of torchvision {table()['torchvision']}")
@pytest.mark.parametrize("name", PUBLISHED)
def test_an_entry_says_what_the_enum_says(name: str) -> None:
    spec, member = LISTED[f"torchvision/{name}"], PUBLISHED[name]
    preset, inputs, weights = member.transforms(), spec.inputs, spec.weights
    assert isinstance(inputs, zoo.Image)
    assert weights is not None
    assert weights.url == member.url
    assert weights.sha256_prefix == torch.hub.HASH_REGEX.search(member.url)[1]
    assert weights.license == ("cc-by-nc-4.0" if "SWAG" in name.upper() else "bsd-3-clause")
    assert ("license" in member.meta) == (weights.license == "cc-by-nc-4.0")
    assert (inputs.size, list(inputs.mean), list(inputs.std)) == ((preset.crop_size[0],) * 2, preset.mean, preset.std)
    assert inputs.interpolation == preset.interpolation.value
    assert int(inputs.height / inputs.crop) == preset.resize_size[0]
    assert spec.metrics == {"imagenet-top1": member.meta["_metrics"]["ImageNet-1K"]["acc@1"]}
    if name.partition(".")[0] not in ("inception_v3", "squeezenet1_0", "squeezenet1_1"):  # auxiliary heads, a convolution as classifier
        bias = 0 if name.startswith("maxvit") else 1000
        assert spec.parameters + 1000 * spec.features.dim + bias == member.meta["num_params"]
        assert spec.macs == pytest.approx(member.meta["_ops"] - spec.features.dim / 1e6, rel=0.03, abs=0.001)


def test_the_parameters_of_the_others_are_those_published_less_their_classifiers() -> None:
    for name in ("inception_v3", "squeezenet1_0", "squeezenet1_1"):
        member = models.get_model_weights(name).DEFAULT
        with torch.device("meta"):
            home = models.get_model(name, **({"init_weights": False} if name == "inception_v3" else {}))
        heads = [part for key, part in home.named_children() if key in ("classifier", "fc", "AuxLogits")]
        left_out = sum(parameter.numel() for part in heads for parameter in part.parameters())
        assert LISTED[f"torchvision/{name}"].parameters + left_out == member.meta["num_params"]


@pytest.mark.parametrize("name", ["resnet50", "vit_h_14", "efficientnet_b1", "mobilenet_v3_large"])
def test_a_name_without_a_tag_has_the_weights_that_torchvision_takes_by_default(name: str) -> None:
    default = models.get_model_weights(name).DEFAULT
    assert LISTED[f"torchvision/{name}"].weights == LISTED[f"torchvision/{name}.{default.name.lower()}"].weights


def test_what_is_left_out_are_weights_that_classify_nothing() -> None:
    for name in LEFT_OUT:
        assert f"torchvision/{name}" not in LISTED
        assert MEMBERS[name].meta["categories"] is None


def test_the_table_of_the_page_is_up_to_date() -> None:
    script = Path(__file__).parents[3] / "scripts" / "make_plugin_pages.py"
    assert subprocess.run([sys.executable, script, "--check", "torchvision"], check=False).returncode == 0
