"""What zoo saves, timm opens with equal logits; where timm cannot, the reason is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from zoo_timm.home import export

import zoo
from zoo.testing import randomise

SAMPLE = {
    "test_resnet": "BCHW",
    "test_efficientnet": "BCHW",
    "test_vit": "BND",
    "vit_srelpos_small_patch16_224": "BND",
    "swin_tiny_patch4_window7_224": "BHWC",
    "test_convnext": "BD",
    "lcnet_035": "BD",
    "test_vit2": "BD",
}


@pytest.mark.parametrize("name", SAMPLE)
def test_timm_opens_what_zoo_saved_and_gives_equal_logits(name: str, tmp_path: Path) -> None:
    model = randomise(zoo.get(f"timm/{name}", weights=False).adapt(3, labels=["ant", "bee", "cow"]))
    assert model.spec.features.layout == SAMPLE[name]
    model.save(tmp_path / "saved")
    opened = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
    x = torch.randn(2, *model.inputs.shape)
    with torch.no_grad():
        torch.testing.assert_close(opened(x), model(x))
        torch.testing.assert_close(zoo.load(tmp_path / "saved")(x), model(x))
    assert list(opened.pretrained_cfg["label_names"]) == ["ant", "bee", "cow"]
    assert tuple(opened.pretrained_cfg["mean"]) == model.inputs.mean


def test_build_options_and_channels_travel(tmp_path: Path) -> None:
    model = randomise(
        zoo.get("timm/test_efficientnet", weights=False, pad_type="same", bn_eps=1e-3, drop_path_rate=0.1).adapt(2, in_chans=1)
    )
    model.save(tmp_path / "saved")
    opened = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
    x = torch.randn(1, 1, 65, 65)
    with torch.no_grad():
        torch.testing.assert_close(opened(x), model(x))


def test_another_image_size_travels(tmp_path: Path) -> None:
    model = randomise(zoo.get("timm/test_vit", weights=False, img_size=96).adapt(2))
    model.save(tmp_path / "saved")
    opened = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(opened(x), model(x))


def test_max_pooling_travels_where_timm_has_it(tmp_path: Path) -> None:
    model = randomise(zoo.get("timm/test_resnet", weights=False).adapt(2, pool="max"))
    model.save(tmp_path / "saved")
    opened = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(opened(x), model(x))


@pytest.mark.parametrize(
    ("name", "head", "reason"),
    [
        ("test_resnet", {"head": "mlp"}, "its head is 'mlp'"),
        ("test_vit", {"pool": "avg"}, "other tensors"),
        ("test_vit", {"pool": "max"}, "when it pools by 'max'"),
        ("deit_tiny_distilled_patch16_224", {}, "2 classifiers"),
        ("levit_128s", {}, "classifiers"),
        ("dla46x_c", {}, "other tensors"),
    ],
)
def test_what_timm_cannot_express_is_told(name: str, head: dict[str, str], reason: str) -> None:
    told = export(zoo.get(f"timm/{name}", weights=False).adapt(3, **head))
    assert isinstance(told, str)
    assert reason in told


def test_exporting_changes_nothing_in_the_model() -> None:
    model = zoo.get("timm/test_resnet", weights=False).adapt(3).freeze(2).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    export(model)
    assert model.training
    assert not model.backbone.layer1.training
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.backbone.layer4.parameters()].count(False) == 0
