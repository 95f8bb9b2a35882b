"""Published checkpoints load: real weights bit for bit, other image sizes by resampling, stems that fold pixels by channels."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn
from zoo_timm.load import checkpoint_filter, convert, name_of

import zoo


def test_real_mobilenet_weights_give_timms_own_logits(weights: Path) -> None:
    file = weights / "mobilenetv2_100_in1k" / "model.safetensors"
    state = safetensors.torch.load_file(file)
    twin = timm.create_model("mobilenetv2_100", pad_type="same", bn_eps=1e-3).eval()
    twin.load_state_dict(state)
    model = zoo.get("timm/mobilenetv2_100", weights=file, pad_type="same", bn_eps=1e-3).adapt(1000).eval()
    model.head.linear.load_state_dict({key: state[f"classifier.{key}"] for key in ("weight", "bias")})
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model(x), twin(x))


def test_real_transformer_weights_give_timms_own_features(weights: Path) -> None:
    file = weights / "vit_prenorm_cifar10" / "model.safetensors"
    shape = {"img_size": 32, "patch_size": 4, "embed_dim": 128, "depth": 6, "num_heads": 4, "mlp_ratio": 2}
    shape["norm_layer"] = partial(nn.LayerNorm, eps=1e-5)
    twin = timm.create_model("test_vit", num_classes=10, **shape).eval()
    twin.load_state_dict(safetensors.torch.load_file(file))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(zoo.get("timm/test_vit", weights=file, **shape).features(x), twin.forward_features(x))


def test_position_embeddings_are_resampled_to_another_image_size(tmp_path: Path) -> None:
    published = timm.create_model("test_vit")
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(published.state_dict(), file)
    built = zoo.get("timm/test_vit", weights=file, img_size=96).build()
    loaded = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay={"state_dict": published.state_dict()}, img_size=96, num_classes=0
    )
    assert built.pos_embed.shape == (1, 37, 64)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(built.state_dict()[name], tensor), name


def test_a_state_that_fits_is_returned_as_it_is_without_its_classifier() -> None:
    model = timm.create_model("test_resnet")
    state = model.state_dict()
    converted = convert(state, timm.create_model("test_resnet", num_classes=0))
    assert converted.keys() == state.keys() - {"fc.weight", "fc.bias"}
    assert all(converted[key] is state[key] for key in converted)


@pytest.mark.parametrize("name", ["test_vit", "convnext_atto", "swin_tiny_patch4_window7_224", "efficientformer_l1"])
def test_the_filter_is_the_one_that_timm_uses(name: str) -> None:
    model = timm.create_model(name, num_classes=0)
    found = checkpoint_filter(model)
    assert found is not None
    assert found.__name__ == "checkpoint_filter_fn" or callable(found)
    assert type(model).__module__.startswith("timm.models")


def test_an_architecture_without_a_filter_has_none() -> None:
    assert checkpoint_filter(timm.create_model("test_resnet", num_classes=0)) is None


def test_keys_of_the_original_publication_are_renamed() -> None:
    module = timm.create_model("convnext_atto", num_classes=0)
    original = {}
    for key, tensor in module.state_dict().items():  # the names of the original repository, which timm's filter knows
        for new, old in (
            ("stem.", "downsample_layers.0."),
            ("mlp.fc1", "pwconv1"),
            ("mlp.fc2", "pwconv2"),
            ("conv_dw", "dwconv"),
            ("head.norm", "norm"),
        ):
            key = key.replace(new, old)
        for stage in range(1, 4):
            key = key.replace(f"stages.{stage}.downsample", f"downsample_layers.{stage}")
        original[key.replace(".blocks.", ".")] = tensor
    converted = convert({"head.weight": torch.zeros(1000, 320), **original}, module)
    assert converted.keys() >= module.state_dict().keys()


def test_a_stem_that_folds_pixels_is_adapted_to_one_channel(caplog: pytest.LogCaptureFixture) -> None:
    published = timm.create_model("tresnet_m")
    module = timm.create_model("tresnet_m", num_classes=0, in_chans=1)
    with caplog.at_level(logging.WARNING, "zoo"):
        converted = convert(published.state_dict(), module)
    module.load_state_dict(converted)
    assert "from 3 to 1 input channels" in caplog.text


def test_a_model_tells_its_name_with_the_tag() -> None:
    assert name_of(timm.create_model("resnet18.a1_in1k", num_classes=0)) == "resnet18.a1_in1k"


def test_a_saved_file_cannot_choose_another_architecture(tmp_path: Path) -> None:
    folder = zoo.get("timm/test_vit", weights=False, img_size=64).adapt(2).save(tmp_path / "saved")
    assert zoo.load(folder).inputs.size == (64, 64)  # type: ignore[union-attr]
    told = json.loads((folder / "config.json").read_text())
    told["architecture"] = told["zoo"]["options"]["architecture"] = "hf-hub:evil/repo"
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(zoo.ZooError, match=r"architecture='hf-hub:evil/repo' for timm/test_vit, whose declaration decides that"):
        zoo.load(folder)
