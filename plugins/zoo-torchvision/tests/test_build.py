"""Options reach torchvision, and those that an architecture does not have are refused by name with a remedy."""

from __future__ import annotations

import warnings

import pytest
import torch
from zoo_torchvision.build import create

import zoo


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("resnet18", {"img_size": 96}, r"images of any size: pass image_size to fit\(\)"),
        ("resnet18", {"num_classes": 5}, r"adapt\(num_classes=…\)"),
        ("resnet18", {"dropout": 0.5}, r"belongs to the head: adapt\(…, dropout=…\)"),
        ("mobilenet_v2", {"width_mul": 0.5}, "did you mean 'width_mult'"),
        ("resnet18", {"output_stride": 8}, "by replace_stride_with_dilation"),
        ("efficientnet_b0", {"drop_path_rate": 0.5}, "torchvision calls it stochastic_depth_prob"),
        ("googlenet", {"aux_logits": True}, "no part of a backbone"),
        ("vit_b_16", {"image_size": 96}, "give img_size"),
        ("vit_b_16", {"img_size": (64, 96, 3)}, r"one number or height and width"),
        ("vit_b_16", {"img_size": (96, 128)}, "square images only"),
        ("maxvit_t", {"img_size": (224,)}, "one number or height and width, not 1 numbers"),
        ("vit_b_16", {"img_size": 100}, "refuses img_size=100: .*indivisible by patch size"),
        ("maxvit_t", {"img_size": 200}, "refuses img_size=200: .*divisible"),
    ],
)
def test_an_option_that_an_architecture_does_not_have_is_refused_with_a_remedy(name: str, options: dict[str, object], told: str) -> None:
    with torch.device("meta"), pytest.raises(zoo.OptionError, match=told) as caught:
        create(name, **options)  # type: ignore[arg-type]  # wrong on purpose
    assert f"torchvision/{name}" in str(caught.value)


def test_all_refused_options_are_told_at_once() -> None:
    with pytest.raises(zoo.OptionError, match=r"'weights' \(.*zoo.get.*\), 'img_size' \(.*image_size to fit"):
        create("resnet18", img_size=96, weights="DEFAULT")


def test_options_reach_the_network() -> None:
    assert max(m.p for m in create("efficientnet_b0", stochastic_depth_prob=0.5).modules() if type(m).__name__ == "StochasticDepth") > 0.4
    assert create("mobilenet_v2", width_mult=0.25).features[0][0].out_channels == 8
    assert create("mobilenet_v3_small", dropout=0.5).classifier[2].p == 0.5


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "densenet121"])
@pytest.mark.parametrize("channels", [1, 4])
def test_another_number_of_channels_is_taken(name: str, channels: int) -> None:
    backbone = zoo.get(f"torchvision/{name}", weights=False, in_chans=channels)
    assert backbone.spec.inputs.shape == (channels, 224, 224)  # type: ignore[union-attr]  # an image
    assert torch.isfinite(backbone.features(torch.randn(1, channels, 32, 32))).all()


def test_an_image_size_changes_the_declared_input_and_the_tokens() -> None:
    backbone = zoo.get("torchvision/vit_b_32", weights=False, img_size=64)
    assert backbone.spec.inputs.shape == (3, 64, 64)  # type: ignore[union-attr]  # an image
    assert backbone.features(torch.zeros(1, 3, 64, 64)).shape == (1, 5, 768)


def test_networks_with_auxiliary_heads_are_built_without_them_and_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = create("googlenet", transform_input=True)
    assert not [name for name, _ in module.named_parameters() if name.startswith("aux")]
    assert not hasattr(create("googlenet", transform_input=False), "transform_input")
