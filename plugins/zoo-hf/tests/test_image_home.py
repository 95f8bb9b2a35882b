"""Classifiers of images: what zoo saves, transformers opens with equal logits and under the names that it writes itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import IMAGES, opened, some
from transformers import AutoImageProcessor, AutoModelForImageClassification
from zoo_hf.declared_families import FAMILIES
from zoo_hf.home import export

import zoo
from zoo.testing import randomise

CLASSIFIERS = tuple(kind for kind in IMAGES if FAMILIES[kind].sequence)


def model_of(path: Path, kind: str, **options: Any) -> zoo.TaskModel:
    """Return a model with the head that the classifier of this family is."""
    home = FAMILIES[kind].sequence
    assert home is not None
    pool = {"pool": home.pool} if home.pool else {}
    model: Any = randomise(zoo.get(path, weights=False, **options).adapt(3, labels=["ant", "bee", "cow"], **pool))
    return model


@pytest.mark.parametrize("kind", some(CLASSIFIERS, "beit", "clip_vision_model", "convnext", "deit", "hiera", "segformer", "swin", "vit"))
def test_a_classifier_opens_with_equal_logits(kind: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    model: Any = model_of(folder(kind), kind)
    home = opened(AutoModelForImageClassification, model.save(tmp_path / "saved"))
    x = torch.randn(2, *model.inputs.shape)
    with torch.no_grad():
        torch.testing.assert_close(home(x).logits, model(x))
        assert torch.equal(zoo.load(tmp_path / "saved")(x), model(x))
    assert home.config.id2label == {0: "ant", 1: "bee", 2: "cow"}
    processor = AutoImageProcessor.from_pretrained(tmp_path / "saved", use_fast=False)
    assert tuple(processor.image_mean) == model.inputs.mean
    # A model that was opened keeps the names that it was opened with; a new one has those of the published files.
    AutoModelForImageClassification.from_config(home.config).save_pretrained(tmp_path / "theirs")
    assert load_file(tmp_path / "theirs" / "model.safetensors").keys() == load_file(tmp_path / "saved" / "model.safetensors").keys()


@pytest.mark.parametrize("kind", some(CLASSIFIERS, "clip_vision_model", "segformer"))
def test_the_file_of_a_classifier_is_a_backbone(kind: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    model: Any = model_of(folder(kind), kind)
    opened(AutoModelForImageClassification, model.save(tmp_path / "saved")).save_pretrained(tmp_path / "theirs")
    options = {"pooler": model.spec.options["pooler"]} if "pooler" in model.spec.options else {}
    backbone, x = zoo.get(tmp_path / "theirs", **options), torch.randn(2, *model.inputs.shape)
    with torch.no_grad():
        assert torch.equal(backbone.features(x), model.backbone(x))


@pytest.mark.parametrize(
    ("kind", "options", "remedy"),
    [
        ("clip_vision_model", {}, "adapt(3, pool='avg')"),
        ("siglip_vision_model", {"task": "multi-label"}, "adapt(3, task='multi-label', pool='avg')"),
        ("hiera", {"pool": "avg"}, "adapt(3, pool='pooler')"),
        ("convnext", {"head": "mlp"}, "adapt(3) would open there"),
        ("dinov3_vit", {}, "none of the heads"),
        ("vit_mae", {}, "none of the heads"),
    ],
)
def test_what_transformers_cannot_express_is_told(kind: str, options: dict[str, Any], remedy: str, folder: Callable[..., Path]) -> None:
    told = export(zoo.get(folder(kind), weights=False).adapt(3, **options))
    assert isinstance(told, str)
    assert remedy in told


@pytest.mark.parametrize(("kind", "opens"), [("swin", True), ("segformer", True), ("beit", True), ("deit", False), ("hiera", False)])
def test_a_classifier_of_another_size_opens_where_it_need_not_be_told(kind: str, opens: bool, folder: Callable[..., Path]) -> None:
    told = export(model_of(folder(kind), kind, img_size=96))
    assert isinstance(told, dict) == opens, told
    assert opens or "interpolate_pos_encoding" in str(told)


@pytest.mark.parametrize("kind", ["clip_vision_model", "hiera"])
def test_a_saved_model_whose_own_pooling_is_off_is_a_backbone_again(kind: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    first: Any = zoo.get(folder(kind), weights=False).adapt(2, pool="avg").eval()
    first.save(tmp_path / "first")
    second: Any = zoo.get(tmp_path / "first").adapt(3).eval()
    assert second.spec.features == zoo.Features(dim=16, layout="BND", pool="avg", prefix_tokens=first.spec.features.prefix_tokens)
    third: Any = zoo.get(tmp_path / "first").adapt(3, pool="max").save(tmp_path / "third")
    x = torch.randn(2, *first.inputs.shape)
    with torch.no_grad():
        assert torch.equal(second.backbone(x), first.backbone(x))
        assert torch.equal(zoo.load(tmp_path / "first")(x), first(x))
        assert zoo.load(third)(x).shape == (2, 3)
