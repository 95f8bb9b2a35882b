"""The catalogue: complete, invented nowhere, and listed without timm or torch; newer names are asked of timm."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
import zoo_timm
from timm.models import register_model
from zoo_timm.catalogue import table

import zoo

LISTED = {spec.name: spec for spec in zoo_timm.zoo_backbones()}


def test_listing_imports_neither_timm_nor_torch() -> None:
    code = "import sys, zoo_timm; print(len(list(zoo_timm.zoo_backbones())) > 3000, {'timm', 'torch', 'torchvision'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True set()"


@pytest.mark.skipif(timm.__version__ != table()["timm"], reason=f"the catalogue is of timm {table()['timm']}")
def test_every_name_of_the_installed_timm_is_listed_and_none_is_invented() -> None:
    known = {f"timm/{name}" for name in (*timm.list_models(), *timm.list_pretrained())}
    assert LISTED.keys() == known


def test_no_name_is_listed_twice() -> None:
    names = [spec.name for spec in zoo_timm.zoo_backbones()]
    assert len(names) == len(set(names))


def test_an_architecture_has_the_weights_of_its_default_tag() -> None:
    spec, default = LISTED["timm/resnet50"], timm.get_pretrained_cfg("resnet50")
    assert spec.weights is not None
    assert spec.weights.repo == f"timm/resnet50.{default.tag}"
    assert spec.weights == LISTED[f"timm/resnet50.{default.tag}"].weights


def test_preprocessing_licence_and_published_figures_are_of_the_tag() -> None:
    spec = LISTED["timm/resnet50.a1_in1k"]
    config = timm.get_pretrained_cfg("resnet50.a1_in1k")
    assert isinstance(spec.inputs, zoo.Image)
    assert spec.inputs.shape == config.input_size
    assert (spec.inputs.mean, spec.inputs.std) == (config.mean, config.std)
    assert (spec.inputs.interpolation, spec.inputs.crop) == (config.interpolation, config.crop_pct)
    assert spec.license == "apache-2.0"
    assert spec.metrics == {"imagenet-top1": pytest.approx(80.2, abs=0.2)}
    assert spec.parameters == 23_508_032  # published: 25.6 million with the classifier
    assert spec.macs == pytest.approx(4.1, abs=0.05)  # published: 4.1 GMACs


def test_a_tag_of_another_size_has_its_own_cost() -> None:
    small, large = LISTED["timm/convnext_base.fb_in22k_ft_in1k"], LISTED["timm/convnext_base.fb_in22k_ft_in1k_384"]
    assert large.macs == pytest.approx(small.macs * (384 / 224) ** 2, rel=0.02)
    assert large.features is small.features


def test_every_licence_is_lower_case_and_unknown_where_timm_states_none() -> None:
    licences = {spec.license for spec in LISTED.values()}
    assert {"apache-2.0", "mit", "cc-by-nc-4.0", "unknown"} < licences
    assert all(licence == licence.lower() for licence in licences)


def test_weights_that_are_not_on_the_hub_keep_their_address() -> None:
    weights = LISTED["timm/gcvit_base.in1k"].weights
    assert weights is not None
    assert not weights.repo
    assert weights.url.endswith(".pth")


def test_an_architecture_without_weights_declares_none() -> None:
    assert not timm.models.is_model_pretrained("resnetv2_152")
    assert LISTED["timm/resnetv2_152"].weights is None


def test_a_name_of_another_plugin_or_unknown_to_timm_is_left_alone() -> None:
    for name in ("hf/resnet50", "timm/resnet5O", "timm/resnet50.a1_in1l", "resnet50"):
        assert zoo_timm.zoo_find_backbone(name) is None


def test_a_name_newer_than_the_catalogue_is_asked_of_timm() -> None:
    def newer_resnet(pretrained: bool = False, **options: object) -> object:
        return timm.models.resnet.resnet18(pretrained=pretrained, **options)

    newer_resnet.__module__ = __name__
    register_model(newer_resnet)
    try:
        spec = zoo_timm.zoo_find_backbone("timm/newer_resnet")
        assert spec is not None
        assert spec.weights is None
        assert (spec.features.dim, spec.features.layout, spec.parameters) == (512, "BD", 11_176_512)
        features = zoo.get("timm/newer_resnet", weights=False, in_chans=3).features(torch.zeros(1, 3, 64, 64))
        assert features.shape == (1, 512)
    finally:
        timm.models._registry._clear_model_entries("newer_resnet")


def test_a_live_answer_equals_the_catalogue_where_both_know_the_name() -> None:
    for name in ("timm/resnet50.a1_in1k", "timm/vit_tiny_patch16_224", "timm/test_convnext"):
        live = zoo_timm.zoo_find_backbone(name)
        assert live is not None
        assert live == LISTED[name].replace(macs=0.0, metrics={}, weights=live.weights)
