"""Options reach timm, and those that an architecture does not have are refused by name."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from zoo_timm.build import create

import zoo


def test_a_backbone_has_timms_own_keys_without_the_classifier() -> None:
    own = set(timm.create_model("test_resnet").state_dict()) - {"fc.weight", "fc.bias"}
    assert set(create("test_resnet", unpooled=True).state_dict()) == own


@pytest.mark.parametrize(
    ("name", "option", "told"),
    [
        ("vgg11", {"drop_path_rate": 0.1}, "no stochastic depth"),
        ("test_resnet", {"img_size": 96}, "images of any size: pass image_size to fit"),
        ("test_resnet", {"drop_path": 0.1}, "did you mean 'drop_path_rate'"),
        ("test_vit", {"pad_type": "same"}, "only the EfficientNet and MobileNet families"),
        ("test_resnet", {"num_classes": 5}, r"adapt\(num_classes=…\)"),
        ("test_resnet", {"global_pool": "max"}, r"adapt\(…, pool=…\)"),
        ("test_resnet", {"output_stride": 3}, "refuses output_stride=3"),
        ("test_vit", {"output_stride": 16}, "only convolutional networks"),
    ],
)
def test_an_option_that_an_architecture_does_not_have_is_refused_with_a_remedy(name: str, option: dict[str, object], told: str) -> None:
    with pytest.raises(zoo.OptionError, match=told) as caught:
        create(name, **option)
    assert f"timm/{name}" in str(caught.value)
    assert next(iter(option)) in str(caught.value)


def test_all_refused_options_are_told_at_once() -> None:
    with pytest.raises(zoo.OptionError) as caught:
        create("test_resnet", img_size=96, drop_path=0.1)
    assert "'img_size'" in str(caught.value)
    assert "'drop_path'" in str(caught.value)


def test_drop_path_rate_and_padding_reach_the_model() -> None:
    dropped = [module.drop_prob for module in create("test_vit", drop_path_rate=0.3).modules() if type(module).__name__ == "DropPath"]
    assert max(dropped) == pytest.approx(0.3)
    same = [type(module).__name__ for module in create("test_efficientnet", pad_type="same").modules() if isinstance(module, nn.Conv2d)]
    assert "Conv2dSame" in same
    assert create("test_efficientnet", bn_eps=0.5).bn1.eps == 0.5


def test_img_size_changes_the_declared_input_and_the_tokens() -> None:
    backbone = zoo.get("timm/test_vit", weights=False, img_size=96)
    assert backbone.spec.inputs.shape == (3, 96, 96)
    assert backbone.features(torch.zeros(1, 3, 96, 96)).shape == (1, 37, 64)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_input_channels_are_adapted_and_said_so(channels: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved = zoo.get("timm/test_efficientnet", weights=False).adapt(2).save(tmp_path / "plain")
    with caplog.at_level(logging.WARNING, "zoo"):
        adapted = zoo.get(saved).adapt(2, in_chans=channels).eval()
    plain = zoo.load(saved)
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected = plain.backbone(grey.expand(1, 3, 64, 64))
        got = adapted.backbone(grey.expand(1, channels, 64, 64))
    assert got.shape == expected.shape
    if channels <= 3:  # five channels repeat three unevenly
        torch.testing.assert_close(got, expected)
    assert ("adapted from 3" in caplog.text) == (channels != 3)


@pytest.mark.parametrize(
    "name", ["swinv2_cr_tiny_224", "vit_small_patch16_rope_mixed_224", "swinv2_tiny_window8_256", "swin_tiny_patch4_window7_224"]
)
def test_buffers_are_right_where_a_model_must_be_built_without_values(name: str) -> None:
    from zoo.testing import Subject, headless_build_equals_plain_build

    headless_build_equals_plain_build(Subject(f"timm/{name}"))


@pytest.mark.parametrize(
    ("name", "options", "dim"), [("test_vit", {"embed_dim": 32}, 32), ("test_resnet", {"channels": (8, 16, 24, 48)}, 48)]
)
def test_the_declared_width_follows_what_options_built(name: str, options: dict[str, object], dim: int, tmp_path: Path) -> None:
    backbone = zoo.get(f"timm/{name}", weights=False, **options)
    model = backbone.adapt(2)
    x = torch.randn(2, *backbone.spec.inputs.shape)
    assert (model.spec.features.dim, model.eval()(x).shape) == (dim, (2, 2))
    assert backbone.spec.parameters == sum(parameter.numel() for parameter in backbone.build().parameters())
    again = zoo.load(model.save(tmp_path / "saved"))
    assert torch.allclose(again(x), model(x), atol=1e-6)
    assert zoo.get(tmp_path / "saved").spec.features.dim == dim


def test_a_head_of_ones_own_is_judged_by_the_width_that_options_built() -> None:
    backbone = zoo.get("timm/test_vit", weights=False, embed_dim=32)
    model = backbone.adapt(2, head=torch.nn.Linear(32, 2))
    assert model(torch.randn(2, *backbone.spec.inputs.shape)).shape == (2, 2)
    with pytest.raises(zoo.OptionError, match=r"the head fails on features of shape \(2, 32\)"):
        zoo.get("timm/test_vit", weights=False, embed_dim=32).adapt(2, head=torch.nn.Linear(64, 2))


def test_options_that_change_the_tokens_in_front_of_the_patches_are_refused() -> None:
    with pytest.raises(zoo.OptionError, match=r"class_token=False has 0 tokens in front of the patches, not the declared 1.*zoo\.wrap"):
        zoo.get("timm/test_vit", weights=False, class_token=False).build()
