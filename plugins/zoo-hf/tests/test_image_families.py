"""Every family of images: the contract of a plugin holds, features are the home library's at any size, published names are understood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import CONFIGS, IMAGES, some
from transformers import AutoConfig, AutoModel, ViTMAEForPreTraining
from zoo_hf.declared_families import FAMILIES
from zoo_hf.describe import root

import zoo
from zoo.testing import check_backbone, randomise

STAGES = ("embeddings", "stage.0", "stage.1")
GROUPS = dict.fromkeys(("convnext", "convnextv2", "hiera", "swin", "swinv2"), STAGES)
GROUPS |= dict.fromkeys(("dinov3_convnext", "segformer"), STAGES[1:])
PREFIX = {"deit": 2, "dinov2_with_registers": 3, "dinov3_vit": 3}
PREFIX |= dict.fromkeys(("convnext", "convnextv2", "hiera", "ijepa", "segformer", "siglip_vision_model", "swin", "swinv2"), 0)


def told(home: Any, x: torch.Tensor) -> Any:
    """Return what the home library's model gives, as it must be called for images of this size."""
    kind, options = home.config.model_type, {}
    if kind == "vit_mae":
        home.config.mask_ratio = 0.0
        options["noise"] = torch.arange((x.shape[-2] // 8) * (x.shape[-1] // 8)).expand(len(x), -1)
    if FAMILIES[kind].interpolates:
        options["interpolate_pos_encoding"] = True
    with torch.no_grad():
        return home(x, **options)


@pytest.fixture
def random(folder: Callable[..., Path]) -> Callable[..., Path]:
    """Write a folder as ``folder`` does, with weights of which none is a zero or a one."""

    def make(kind: str, auto: Any = AutoModel, **changes: Any) -> Path:
        path = folder(kind, **changes)
        randomise(auto.from_config(AutoConfig.for_model(kind, **{**CONFIGS[kind], **changes}))).save_pretrained(path)
        return path

    return make


@pytest.mark.parametrize("kind", IMAGES)
def test_defaults_are_those_of_the_home_library(kind: str) -> None:
    config, features = AutoConfig.for_model(kind), root(kind).features
    assert features.dim == getattr(config, "hidden_size", None) or features.dim == config.hidden_sizes[-1]
    registers = getattr(config, "num_register_tokens", 0)
    assert features.prefix_tokens == (1 + registers if hasattr(config, "num_register_tokens") else PREFIX.get(kind, 1))


@pytest.mark.parametrize("kind", some(IMAGES, "beit", "clip_vision_model", "convnext", "swin"))
def test_a_family_keeps_the_contract_of_a_plugin(kind: str, folder: Callable[..., Path]) -> None:
    path = folder(kind, auto=AutoModel)
    (path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert check_backbone(str(path)) >= 10
    assert zoo.get(path, weights=False).groups.names == GROUPS.get(kind, ("embeddings", "layer.0", "layer.1"))
    assert zoo.get(path, weights=False).spec.features.prefix_tokens == PREFIX.get(kind, 1)


@pytest.mark.parametrize("kind", IMAGES)
def test_features_equal_those_of_the_home_library_at_any_size(kind: str, random: Callable[..., Path]) -> None:
    path = random(kind)
    declared = zoo.get(path).spec
    for size in (declared.inputs.size, (64, 64), (96, 64)):  # type: ignore[union-attr]  # an image
        if kind in ("dinov2", "dinov2_with_registers") and size == (96, 64):
            size = (70, 42)
        x = torch.randn(2, 3, *size)  # type: ignore[misc]  # a pair
        output = told(AutoModel.from_pretrained(path).eval(), x)
        for pooler in (True, False) if "pooler" in declared.options else (None,):
            backbone = zoo.get(path, img_size=size, **({} if pooler is None else {"pooler": pooler}))
            pooled = backbone.spec.features.layout == "BD"
            assert pooled == (FAMILIES[kind].pooler == "always" if pooler is None else pooler)
            assert torch.equal(backbone.features(x), output.pooler_output if pooled else output.last_hidden_state), (size, pooler)


@pytest.mark.parametrize("use", [True, False])
def test_both_poolings_of_beit_are_understood(use: bool, random: Callable[..., Path]) -> None:
    changes = {"use_mean_pooling": use, "use_relative_position_bias": False, "use_absolute_position_embeddings": True}
    path = random("beit", **changes, use_shared_relative_position_bias=True, use_mask_token=True)
    x = torch.randn(2, 3, 32, 32)
    assert "embeddings.mask_token" in load_file(path / "model.safetensors")
    assert torch.equal(zoo.get(path).features(x), told(AutoModel.from_pretrained(path).eval(), x).pooler_output)


def test_the_masking_of_an_autoencoder_is_off_and_its_patches_keep_their_order(random: Callable[..., Path]) -> None:
    path = random("vit_mae", auto=Pretraining, decoder_hidden_size=8, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
    assert any(key.startswith("decoder.") for key in load_file(path / "model.safetensors"))
    backbone, x = zoo.get(path), torch.randn(2, 3, 32, 32)
    features = backbone.features(x)
    assert features.shape == (2, 17, 16)
    assert torch.equal(backbone.features(x), features)
    # Without its position embeddings, patches that change places change the places of their features, and nothing else.
    module: Any = backbone.build()
    with torch.no_grad():
        module.embeddings.position_embeddings.zero_()
    there, swapped = backbone.features(x), backbone.features(x.roll(8, dims=-1))
    grid = there[:, 1:].reshape(2, 4, 4, 16)
    torch.testing.assert_close(swapped[:, 1:].reshape(2, 4, 4, 16), grid.roll(1, dims=2))


class Pretraining:
    """The autoencoder with its decoder, made as the classes of ``AutoModel`` are."""

    from_config = staticmethod(ViTMAEForPreTraining)


def test_an_image_of_another_size_leaves_no_trace_in_swin(random: Callable[..., Path]) -> None:
    path = random("swin")
    large, small = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 28, 28)
    backbone = zoo.get(path)
    before = backbone.features(large)
    backbone.features(small)
    assert torch.equal(backbone.features(large), before)
    home = AutoModel.from_pretrained(path).eval()
    told(home, small)
    assert not torch.equal(told(home, large).last_hidden_state, before)  # the home library's keeps the smaller windows


@pytest.mark.parametrize(
    ("kind", "size", "facts"),
    [
        ("swin", (24, 32), ["at least 25 pixels", "24 x 32"]),
        ("hiera", (64, 72), ["multiple of 32", "64 x 72", "nearest image_size is 64 x 64"]),
    ],
)
def test_a_size_that_a_family_cannot_take_is_refused(
    kind: str, size: tuple[int, int], facts: list[str], random: Callable[..., Path]
) -> None:
    with pytest.raises(zoo.OptionError) as caught:
        zoo.get(random(kind)).features(torch.randn(1, 3, *size))
    assert all(fact in str(caught.value) for fact in facts), caught.value


@pytest.mark.parametrize(
    ("kind", "options", "facts"),
    [
        ("vit_mae", {"mask_ratio": 0.75}, ["mask_ratio", "0.0"]),
        ("siglip_vision_model", {"vision_use_head": False}, ["vision_use_head", "pool='pooler'"]),
        ("swin", {"embed_dim": 16}, ["embed_dim", "config.json"]),
        ("vit", {"image_size": 64}, ["'image_size': give img_size"]),
        ("vit", {"num_channels": 1}, ["'num_channels': give in_chans"]),
        ("vit", {"output_stride": 8}, ["'output_stride'", "img_size, in_chans"]),
        ("dinov3_vit", {"num_register_tokens": 4}, ["num_register_tokens", "config.json"]),
    ],
)
def test_options_that_a_declaration_fixes_are_refused(
    kind: str, options: dict[str, Any], facts: list[str], folder: Callable[..., Path]
) -> None:
    with pytest.raises(zoo.OptionError) as caught:
        zoo.get(folder(kind), weights=False, **options).build()
    assert all(fact in str(caught.value) for fact in facts), caught.value


def test_a_tower_without_pooling_is_not_pooled_by_it(random: Callable[..., Path]) -> None:
    path = random("siglip_vision_model", vision_use_head=False)
    backbone, x = zoo.get(path), torch.randn(2, 3, 32, 32)
    assert (backbone.spec.features.layout, backbone.spec.features.pool) == ("BND", "avg")
    assert torch.equal(backbone.features(x), told(AutoModel.from_pretrained(path).eval(), x).last_hidden_state)
    with pytest.raises(zoo.ZooError, match=r"head\."):
        zoo.get(path, pooler=True).build()


def test_the_joined_gates_of_the_largest_dinov2_are_split(folder: Callable[..., Path]) -> None:
    path = folder("dinov2", auto=AutoModel, use_swiglu_ffn=True)
    home, x = AutoModel.from_pretrained(path).eval(), torch.randn(1, 3, 42, 42)
    assert any(".weights_in." in key for key in load_file(path / "model.safetensors"))
    with torch.no_grad():
        assert torch.equal(zoo.get(path).features(x), home(x).last_hidden_state)


def test_channels_other_than_the_published_ones_are_adapted(folder: Callable[..., Path]) -> None:
    path = folder("vit", auto=AutoModel)
    model = zoo.get(path).adapt(2, in_chans=1)
    assert model.inputs.shape == (1, 32, 32)
    whole = zoo.get(path).build().embeddings.patch_embeddings.projection.weight
    assert torch.equal(model.backbone.embeddings.patch_embeddings.projection.weight, whole.sum(dim=1, keepdim=True))
