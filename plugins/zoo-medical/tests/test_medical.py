"""Every network conforms, equals its home library's features, and takes the published keys; listing imports none of them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo_medical
from torch import nn

import zoo
from tests.warm_process import run_warm
from zoo.testing import Subject, backbone_checks

LISTED = {spec.name: spec for spec in zoo_medical.zoo_backbones()}
SMALL: dict[str, dict[str, Any]] = {
    "xrv/densenet121-res224-all": {"img_size": 32},
    "xrv/resnet50-res512-all": {"img_size": 32},
    "monai/resnet10-3d": {"img_size": 16},
    "monai/resnet18-3d.medicalnet": {"img_size": 16, "in_chans": 2},
    "monai/densenet121-3d": {"img_size": 32},
    "monai/swinunetr-24": {"img_size": 32, "use_v2": True},
    "monai/vit-small-3d": {"img_size": 32, "num_layers": 2},
}


@dataclass(frozen=True)
class Small(Subject):
    """A backbone at a small size, so that a dozen training steps take seconds."""

    options: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def backbone(self) -> zoo.Backbone:
        return zoo.get(self.name, weights=False, **self.options)

    def model(self) -> zoo.TaskModel:
        return zoo.get(self.name, weights=False, **self.options).adapt(3)


# The largest networks; densenet121 and vit-small-3d stand for them in the quick tests.
HEAVY = ("xrv/resnet50-res512-all", "monai/resnet10-3d", "monai/swinunetr-24", "monai/densenet121-3d", "monai/resnet18-3d.medicalnet")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.sweep] * (name in HEAVY)) for name in SMALL])
def test_every_family_conforms(name: str) -> None:
    subject = Small(name, options=SMALL[name])
    for check in backbone_checks(subject.backbone.spec.modality):
        check(subject)


@pytest.mark.parametrize("name", ["xrv/densenet121-res224-all", "monai/resnet18-3d", "monai/swinunetr-24", "monai/vit-small-3d"])
def test_an_option_of_another_library_is_refused_with_those_that_it_has(name: str) -> None:
    with pytest.raises(zoo.OptionError, match=rf"{name}' has no option 'output_stride'.*; it has: .*in_chans"):
        zoo.get(name, weights=False, output_stride=8)


def test_listing_imports_no_model_library() -> None:
    heavy = "{'torch', 'monai', 'torchxrayvision'} & {*sys.modules}"
    code = f"import sys, zoo; print(len(zoo.list_backbones('monai/*', modality='volume')), {heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    volumes = [spec for spec in LISTED.values() if spec.modality == "volume"]
    assert done.stdout.strip() == f"{len(volumes)} set()"
    assert len(volumes) == 23


@pytest.mark.parametrize("name", ["xrv/densenet121-res224-all", "xrv/resnet50-res512-all", "monai/resnet18-3d", "monai/swinunetr-24"])
def test_the_number_of_parameters_is_as_declared(name: str) -> None:
    assert sum(parameter.numel() for parameter in zoo.get(name, weights=False).build().parameters()) == LISTED[name].parameters


def test_importing_torchxrayvision_leaves_the_process_as_it_was() -> None:
    code = """
import sys, warnings
import torch, zoo
before = list(warnings.filters), list(sys.path)
zoo.get("xrv/densenet121-res224-nih", weights=False).build()
assert "torchxrayvision" in sys.modules
assert (warnings.filters, sys.path) == before, "filters or path changed"
assert "model" not in sys.modules
warnings.simplefilter("error")
try:
    warnings.warn("heard")
except UserWarning:
    print("heard")
"""
    done = run_warm(code, [], env=os.environ, cwd=Path.cwd())
    assert done.stdout.strip() == "heard", done.stderr[-500:]


def test_the_densenet_gives_the_pooled_features_of_torchxrayvision_in_its_own_range() -> None:
    backbone = zoo.get("xrv/densenet121-res224-all", weights=False)
    module = backbone.build()
    from torchxrayvision.models import DenseNet

    home = DenseNet(num_classes=18).eval()
    home.load_state_dict(module.state_dict(), strict=False)
    x = torch.rand(2, 1, 64, 64)
    inputs: Any = backbone.spec.inputs
    scaled = (x - inputs.mean[0]) / inputs.std[0]
    assert torch.allclose(scaled, (2 * x - 1) * 1024)  # torchxrayvision.utils.normalize
    with torch.no_grad():
        assert torch.equal(backbone.features(scaled), home.features2(scaled.clone()))


def test_the_resnet_gives_the_features_of_torchxrayvision() -> None:
    backbone = zoo.get("xrv/resnet50-res512-all", weights=False)
    home = xray_resnet(backbone.build())
    x = torch.randn(1, 1, 512, 512)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the range of the values
        assert torch.equal(backbone.features(x), home.features(x))


def xray_resnet(module: nn.Module) -> nn.Module:
    """torchxrayvision's ResNet around a network: its constructor fetches weights, so it is left out."""
    from torchxrayvision.models import ResNet

    home = ResNet.__new__(ResNet)
    nn.Module.__init__(home)
    home.model = module
    return home.eval()


def published(name: str) -> dict[str, torch.Tensor]:
    """A state as the file of the published weights has it, of another random network."""
    torch.manual_seed(7)
    module = zoo.get(name, weights=False, **SMALL.get(name, {})).build()
    state = {key: torch.randn_like(value) if value.is_floating_point() else value for key, value in module.state_dict().items()}
    state |= {key: value.abs() for key, value in state.items() if key.endswith("running_var")}
    if name.startswith("xrv/densenet"):
        return {**state, "classifier.weight": torch.zeros(18, 1024), "classifier.bias": torch.zeros(18), "op_threshs": torch.zeros(18)}
    if name.startswith("xrv/resnet"):
        return {
            **{f"model.{key}": value for key, value in state.items()},
            "model.fc.weight": torch.zeros(18, 2048),
            "op_threshs": torch.zeros(18),
        }
    if "resnet" in name:
        return {**{f"module.{key}": value for key, value in state.items()}, "module.conv_seg.0.weight": torch.zeros(3)}
    return {f"module.{key.replace('.mlp.linear', '.mlp.fc')}": value for key, value in state.items()}


@pytest.mark.parametrize(
    "name", ["xrv/densenet121-res224-all", "xrv/resnet50-res512-all", "monai/resnet18-3d.medicalnet", "monai/swinunetr-48.ssl"]
)
def test_published_keys_fill_the_backbone(name: str, tmp_path: Any) -> None:
    from safetensors.torch import save_file

    given = published(name)
    save_file(given, tmp_path / "weights.safetensors")
    state = zoo.get(name, weights=tmp_path / "weights.safetensors", **SMALL.get(name, {})).build().state_dict()
    for key, value in state.items():
        near = [f"{prefix}{old}" for prefix in ("", "model.", "module.") for old in (key, key.replace(".mlp.linear", ".mlp.fc"))]
        found = next(given[old] for old in near if old in given)
        assert torch.equal(value, found), key


def test_the_keys_of_the_self_supervised_swin_are_those_that_monai_itself_loads() -> None:
    from monai.networks.nets import SwinUNETR

    home = SwinUNETR(in_channels=1, out_channels=2, feature_size=48)
    given = published("monai/swinunetr-48.ssl")
    home.load_from({"state_dict": given})
    from zoo_medical.keys import swin_keys

    module = zoo.get("monai/swinunetr-48.ssl", weights=False).build()
    ours = swin_keys({key.removeprefix("module."): value for key, value in given.items()}, module)
    theirs = {key.removeprefix("swinViT."): value for key, value in home.state_dict().items() if key.startswith("swinViT.")}
    assert ours.keys() == theirs.keys() == module.state_dict().keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_every_published_name_has_an_address_that_is_named_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pretrained = {name: spec.weights for name, spec in LISTED.items() if spec.weights}
    assert len(pretrained) == 16
    for name, weights in pretrained.items():
        with pytest.raises(zoo.ZooError, match="HF_HUB_OFFLINE") as caught:
            zoo.get(name).build()
        assert (weights.url or f"{weights.repo}@main/{weights.file}") in str(caught.value)


@pytest.mark.parametrize("legacy", [pytest.param(True, marks=pytest.mark.sweep), False])
def test_a_whole_pickled_network_of_torchxrayvision_is_read_without_it(
    legacy: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchxrayvision

    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(3)
    home = torchxrayvision.models.DenseNet(num_classes=18, weights=None)
    torch.save(home, tmp_path / "whole.pt", _use_new_zipfile_serialization=not legacy)
    found = zoo.get("xrv/densenet121-res224-nih", weights=tmp_path / "whole.pt").build().state_dict()
    given = home.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in found.items())


def test_shortcuts_without_parameters_equal_monais_and_pass_the_gradient_on() -> None:
    from monai.networks.nets.resnet import ResNet, get_inplanes

    options: Any = {"n_input_channels": 1, "feed_forward": False, "shortcut_type": "A"}
    home = ResNet("basic", [2, 2, 2, 2], get_inplanes(), **options).eval()
    module = zoo.get("monai/resnet18-3d.medicalnet", weights=False).build().eval()
    module.load_state_dict(home.state_dict())
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.allclose(module(x).mean((2, 3, 4)), home(x), atol=1e-5)
    block: Any = module.layer2[0]  # type: ignore[index]
    inner = torch.randn(1, 64, 4, 4, 4, requires_grad=True)
    block.downsample(inner).sum().backward()
    assert inner.grad is not None
    assert inner.grad.sum() == 64 * 8  # every second voxel of each axis, in each channel


@pytest.mark.parametrize("name", ["monai/resnet18-3d", "monai/densenet121-3d", "monai/vit-small-3d"])
def test_features_are_those_of_monai(name: str) -> None:
    from monai.networks import nets

    homes: dict[str, Any] = {
        "monai/resnet18-3d": lambda: nets.resnet18(n_input_channels=1, feed_forward=False),
        "monai/densenet121-3d": lambda: nets.DenseNet121(spatial_dims=3, in_channels=1, out_channels=1),
        "monai/vit-small-3d": lambda: nets.ViT(1, 32, 16, hidden_size=384, mlp_dim=1536, num_heads=6),
    }
    home = homes[name]().eval()
    backbone = zoo.get(name, weights=False, img_size=32)
    assert not home.load_state_dict(backbone.build().state_dict(), strict=False).unexpected_keys
    x = torch.randn(2, 1, 32, 32, 32)
    with torch.no_grad():
        features = backbone.features(x)
        pooled = features if features.ndim == 3 else features.mean((2, 3, 4))
        if "densenet" in name:
            home.class_layers.out = nn.Identity()
        theirs = home(x)[0] if "vit" in name else home(x)
    assert torch.allclose(pooled, theirs, atol=1e-5)


def test_the_declared_input_follows_the_options_and_impossible_sizes_are_refused() -> None:
    spec = zoo.get("monai/resnet10-3d", weights=False, img_size=(8, 16, 24), spacing=2.0, in_chans=3).spec
    assert spec.inputs == zoo.Volume(size=(8, 16, 24), spacing=(2.0, 2.0, 2.0), mean=(0.0,) * 3, std=(1.0,) * 3)
    for name, size in (("monai/swinunetr-24", 40), ("monai/vit-small-3d", 40), ("monai/densenet121-3d", 24)):
        with pytest.raises(zoo.OptionError, match="voxels"):
            zoo.get(name, weights=False, img_size=size).build()


def test_the_table_of_the_page_is_up_to_date() -> None:
    script = Path(__file__).parents[3] / "scripts" / "make_plugin_pages.py"
    assert subprocess.run([sys.executable, script, "--check", "medical"], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "size", "works"),
    [
        ("monai/densenet121-3d", 28, 32),
        ("monai/swinunetr-24", 28, 32),
        ("monai/swinunetr-24", (96, 100, 8), (96, 96, 32)),
        ("monai/vit-small-3d", 28, 32),
    ],
)
def test_a_size_that_a_network_cannot_read_is_refused_with_one_that_works(name: str, size: Any, works: Any) -> None:
    with pytest.raises(zoo.OptionError) as caught:
        zoo.get(name, weights=False, img_size=size).build()
    assert f"img_size={works} works" in str(caught.value)


def test_a_size_of_nothing_is_refused_and_not_taken_for_the_usual_one() -> None:
    with pytest.raises(zoo.OptionError, match="img_size is 0; give the side in voxels"):
        zoo.get("monai/resnet10-3d", weights=False, img_size=0)
