"""One small architecture of each timm module: groups bind, run in order, freeze bit for bit; features are as declared."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import conformance
import make_docs
import probe
import proof
import pytest
import timm
import torch
import zoo_timm
from zoo_timm.groups import layers
from zoo_timm.literals import LITERALS

import zoo

PAGE = Path(__file__).resolve().parents[3] / "docs" / "plugins" / "timm.md"
LISTED = {spec.name: spec for spec in zoo_timm.zoo_backbones()}
REPRESENTATIVES = conformance.representatives()
SAMPLE = ("convnext", "efficientnet", "efficientvim", "mobilenetv3", "resnet", "vision_transformer")


def test_every_module_of_timm_is_represented() -> None:
    assert REPRESENTATIVES.keys() == set(timm.list_modules())


@pytest.mark.parametrize("module", SAMPLE)
def test_groups_conform(module: str) -> None:
    assert not conformance.check(REPRESENTATIVES[module]).faults


@pytest.mark.sweep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("module", sorted(set(REPRESENTATIVES) - set(SAMPLE)))
def test_groups_of_every_module_conform(module: str) -> None:
    assert not conformance.check(REPRESENTATIVES[module]).faults


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("resnet18", ["stem", "stage1", "stage2", "stage3", "stage4"]),
        ("densenet121", ["stem", "stage1", "stage2", "stage3", "stage4"]),
        ("mobilenetv2_100", ["stem", *(f"stage.{i}" for i in range(7))]),
        ("vit_tiny_patch16_224", ["stem", *(f"block.{i}" for i in range(12))]),
        ("swin_tiny_patch4_window7_224", ["stem", "stage.0", "stage.1", "stage.2", "stage.3"]),
    ],
)
def test_familiar_families_have_the_familiar_names(name: str, names: list[str]) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    assert list(zoo.bind(model, layers(model)).names) == names


def test_every_literal_is_of_a_class_that_timm_has() -> None:
    modules = [importlib.import_module(f"timm.models.{module}") for module in timm.list_modules()]
    missing = [key for key in LITERALS if not any(hasattr(module, key.partition("+")[0]) for module in modules)]
    assert not missing


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "pit_ti_distilled_224"])
def test_what_the_catalogue_says_of_features_can_be_proved_again(name: str) -> None:
    spec = LISTED[f"timm/{name}"]
    told = probe.probe(name, size=list(spec.inputs.shape))
    seam = {"classifiers": told["classifiers"], "pooled": told["pooled"], "bare": bool(told["bare"])}
    proved = proof.prove(name, size=list(spec.inputs.shape), large=False, **seam)
    assert (spec.features.layout, spec.features.pool) == (proved["layout"], proved["pool"])
    assert (spec.features.dim, spec.features.prefix_tokens) == (told["pooled"][-1], proved["prefix_tokens"])
    assert bool(spec.options.get("unpooled")) == proved["unpooled"]
    assert (spec.parameters, spec.macs) == (told["parameters"], pytest.approx(told["gmacs"], rel=1e-3))


@pytest.mark.sweep
@pytest.mark.parametrize("module", sorted(REPRESENTATIVES))
def test_a_build_without_values_has_the_buffers_of_a_plain_build(module: str) -> None:
    from zoo.testing import Subject, headless_build_equals_plain_build

    headless_build_equals_plain_build(Subject(REPRESENTATIVES[module].name))


@pytest.mark.sweep
def test_the_documented_groups_are_those_of_the_installed_timm() -> None:
    assert "\n".join(make_docs.rows()) in PAGE.read_text(encoding="utf-8")


@pytest.mark.sweep
@pytest.mark.timeout(900)
def test_groups_of_every_architecture_bind() -> None:
    faults = []
    for name in timm.list_models():
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0)
        try:
            zoo.bind(model, layers(model))
        except zoo.ZooError as error:
            faults.append(f"{name}: {error}")
    assert not faults, json.dumps(faults, indent=1)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", pytest.param("test_convnext", marks=pytest.mark.sweep)])
def test_the_public_kit_passes(name: str) -> None:
    from zoo.testing import check_backbone

    assert check_backbone(f"timm/{name}") >= 10


@pytest.mark.sweep
@pytest.mark.timeout(1800)
def test_features_of_every_architecture_are_as_declared() -> None:
    faults = []
    with torch.device("meta"), torch.no_grad():
        for spec in zoo_timm.zoo_backbones():
            if "." in spec.name or spec.parameters > 100e6:
                continue
            model = zoo.get(spec.name, weights=False).build().eval()
            shape = model(torch.zeros(1, *spec.inputs.shape)).shape
            axis = 1 if spec.features.layout == "BCHW" else -1
            if len(shape) != len(spec.features.layout) or shape[axis] != spec.features.dim:
                faults.append(f"{spec.name}: {tuple(shape)} is not {spec.features}")
    assert not faults, json.dumps(faults, indent=1)
