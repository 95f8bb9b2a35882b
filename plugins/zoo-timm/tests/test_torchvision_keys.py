"""Checkpoints that torchvision wrote give equal outputs under timm's names, or are refused with the name that reads them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2
from zoo_timm.load import convert
from zoo_timm.torchvision_keys import architecture_of, family_of

import zoo
from zoo.testing import randomise

WIDTHS = (8, 16, 24, 32)
CONVNEXT = [
    CNBlockConfig(width, following, depth) for width, following, depth in zip(WIDTHS, (*WIDTHS[1:], None), (1, 2, 1, 1), strict=True)
]
SWIN: dict[str, Any] = {"patch_size": [4, 4], "embed_dim": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8], "num_classes": 5}
SMALL_SWIN: dict[str, Any] = {
    "embed_dim": 16,
    "depths": (2, 2, 2, 2),
    "num_heads": (1, 2, 4, 8),
    "img_size": 128,
}  # no window is larger than a map
VIT: dict[str, Any] = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 64}
SMALL_VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 2, "num_heads": 2, "embed_dim": 16}

PAIRS: dict[str, tuple[Any, str, dict[str, Any], int]] = {
    "vit": (partial(models.VisionTransformer, **VIT, num_classes=5), "vit_base_patch16_224", SMALL_VIT, 32),
    "convnext": (partial(models.ConvNeXt, CONVNEXT, num_classes=5), "convnext_tiny", {"depths": (1, 2, 1, 1), "dims": WIDTHS}, 64),
    "swin": (
        partial(models.SwinTransformer, **SWIN, window_size=[4, 4]),
        "swin_tiny_patch4_window7_224",
        {**SMALL_SWIN, "window_size": 4},
        128,
    ),
    "swin v2": (
        partial(models.SwinTransformer, **SWIN, window_size=[2, 2], block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
        "swinv2_tiny_window8_256",
        {**SMALL_SWIN, "window_size": 2},
        128,
    ),
    "mobilenet_v2": (partial(models.mobilenet_v2, num_classes=5), "mobilenetv2_100", {}, 64),
    "mnasnet1_0": (partial(models.mnasnet1_0, num_classes=5), "mnasnet_100", {}, 64),
    "efficientnet_b0": (partial(models.efficientnet_b0, num_classes=5), "efficientnet_b0", {}, 64),
}
POOLED: dict[str, Any] = {
    "BND": lambda features: features[:, 0],
    "BHWC": lambda features: features.mean((1, 2)),
    "BCHW": lambda features: features.mean((2, 3)),
    "BD": lambda features: features,
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_file_of_torchvision_gives_equal_logits_under_timms_names(pair: str, tmp_path: Path) -> None:
    make, name, options, size = PAIRS[pair]
    torch.manual_seed(0)
    home = randomise(make())
    save_file(home.state_dict(), tmp_path / "x.safetensors")
    backbone = zoo.get(f"timm/{name}", weights=tmp_path / "x.safetensors", **options)
    last = [layer for layer in home.modules() if isinstance(layer, nn.Linear)][-1]
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        pooled = POOLED[backbone.spec.features.layout](backbone.features(x))
        torch.testing.assert_close(last(pooled), home(x), rtol=1e-4, atol=1e-5)


def test_position_embeddings_of_torchvision_are_resampled_to_another_image_size(tmp_path: Path) -> None:
    save_file(models.VisionTransformer(**VIT).state_dict(), tmp_path / "x.safetensors")
    built = zoo.get("timm/vit_base_patch16_224", weights=tmp_path / "x.safetensors", **{**SMALL_VIT, "img_size": 48}).build()
    assert built.pos_embed.shape == (1, 37, 16)


def test_names_below_the_prefix_of_a_training_framework_are_found(tmp_path: Path) -> None:
    state = randomise(models.mobilenet_v2()).state_dict()
    save_file({f"model.{key}": value for key, value in state.items()}, tmp_path / "x.safetensors")
    built = zoo.get("timm/mobilenetv2_100", weights=tmp_path / "x.safetensors").build()
    assert torch.equal(built.conv_stem.weight, state["features.0.0.weight"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Write the file of one of torchvision's networks, at its real size, once for all tests that read it."""
    folder = tmp_path_factory.mktemp("files")

    @functools.cache
    def write(written: str, prefix: str) -> Path:
        path = folder / f"{prefix}{written}" / "x.safetensors"
        path.parent.mkdir()
        state = models.get_model(written, num_classes=7).state_dict()
        save_file({f"{prefix}{key}": value for key, value in state.items()}, path)
        return path

    return write


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("mobilenet_v3_small", "mobilenetv3_small_100"),  # another epsilon
        ("shufflenet_v2_x0_5", "resnet18"),
        ("squeezenet1_1", "resnet18"),
        ("mobilenet_v2", "mobilenetv2_050"),
        ("mobilenet_v2", "vit_tiny_patch16_224"),
        ("mnasnet0_5", "mnasnet_small"),
        ("efficientnet_b0", "tf_efficientnet_b0"),  # other padding and epsilon
        ("efficientnet_b0", "efficientnet_blur_b0"),  # the same tensors, and blurred strides
        ("swin_v2_t", "swinv2_tiny_window16_256"),  # the same tensors, and other windows
        pytest.param("swin_v2_b", "swinv2_base_window12to16_192to256", marks=pytest.mark.sweep),
        ("swin_t", "swin_s3_tiny_224"),
        ("vit_b_16", "vit_base_patch32_224"),  # timm's filter would resample the kernel
        ("vit_b_16", "flexivit_base"),  # no position of the class token
        ("vit_b_16", "vit_base_patch16_224_miil"),  # no bias of queries, keys and values
        ("vit_b_32", "vit_base_patch32_clip_224"),  # another epsilon, and a norm before the blocks
    ],
)
@pytest.mark.parametrize("prefix", ["", pytest.param("model.", marks=pytest.mark.sweep)])
def test_a_file_of_another_network_is_refused_with_the_name_that_reads_it(
    written: str, given: str, prefix: str, files: Callable[[str, str], Path]
) -> None:
    with pytest.raises(zoo.ZooError, match=f"use torchvision/{written} ") as caught:
        zoo.get(f"timm/{given}", weights=files(written, prefix)).build()
    assert f"timm/{given}: the file" in str(caught.value)
    assert "x.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("pair", "changed"),
    [
        ("mobilenet_v2", {"bn_eps": 1e-3}),
        ("mobilenet_v2", {"pad_type": "same"}),
        ("mobilenet_v2", {"act_layer": nn.ReLU}),
        ("mobilenet_v2", {"output_stride": 16}),
        ("mnasnet1_0", {"act_layer": nn.ReLU6}),
        ("mnasnet1_0", {"output_stride": 8}),
        ("efficientnet_b0", {"act_layer": nn.ReLU}),
        ("efficientnet_b0", {"output_stride": 16}),
        ("vit", {"act_layer": "quick_gelu"}),
        ("vit", {"no_embed_class": True}),
        ("vit", {"norm_layer": partial(nn.LayerNorm, eps=1e-5)}),
        ("convnext", {"act_layer": "relu"}),
        ("convnext", {"norm_eps": 1e-5}),
        ("convnext", {"output_stride": 16}),
        ("swin", {"window_size": 2}),
        ("swin v2", {"window_size": 4}),
        ("swin v2", {"pretrained_window_sizes": (2, 2, 2, 4)}),
    ],
)
def test_options_that_change_the_computation_and_no_tensor_are_refused(pair: str, changed: dict[str, Any]) -> None:
    make, name, options, _ = PAIRS[pair]
    state, model = make().state_dict(), partial(timm.create_model, name, num_classes=0, **{"global_pool": ""} if pair == "vit" else {})
    assert convert(state, model(**options))
    with pytest.raises(zoo.ZooError, match=r"of this name and these options is another network; use .*torchvision/"):
        convert(state, model(**options | changed))


@pytest.mark.parametrize(("name", "heads"), [("vit_b_16", 8), ("vit_l_16", 8)])
def test_a_number_of_heads_that_torchvision_does_not_publish_is_refused(name: str, heads: int) -> None:
    with torch.device("meta"):
        state = models.get_model(name).state_dict()
        twin = partial(timm.create_model, f"vit_{'base' if name == 'vit_b_16' else 'large'}_patch16_224", num_classes=0)
        assert convert(state, twin())
        with pytest.raises(zoo.ZooError, match=f"use torchvision/{name} "):
            convert(state, twin(num_heads=heads))


def test_a_network_that_torchvision_does_not_publish_is_refused_by_its_family() -> None:
    state = models.ConvNeXt(CONVNEXT).state_dict()
    with pytest.raises(zoo.ZooError, match=r"torchvision's ConvNeXt.*torchvision/…"):
        convert(state, timm.create_model("convnext_atto", num_classes=0))


@pytest.mark.parametrize("name", ["test_vit", "convnext_atto", "swin_tiny_patch4_window7_224", "test_efficientnet", "levit_128s"])
def test_a_file_of_no_network_at_all_names_the_file_and_the_model(name: str, tmp_path: Path) -> None:
    odd = {"features.0.weight": torch.ones(3, 3), "blocks.0.attn.relative_position_bias_table": torch.ones(4, 4), "norm": torch.ones(())}
    save_file(odd, tmp_path / "odd.safetensors")
    with pytest.raises(zoo.ZooError, match=rf"timm/{name}: the file '.*odd\.safetensors' fills 0 of"):
        zoo.get(f"timm/{name}", weights=tmp_path / "odd.safetensors").build()


@pytest.mark.parametrize("name", ["vit_b_32", "swin_v2_t", "convnext_tiny", "googlenet", "maxvit_t", "mnasnet0_5"])
def test_an_architecture_is_known_by_its_checkpoint(name: str) -> None:
    with torch.device("meta"):
        home = models.get_model(name, num_classes=11, **({"init_weights": False} if name == "googlenet" else {}))
    assert family_of(home.state_dict())
    assert architecture_of(home.state_dict()) == name
