"""Published checkpoints fill the backbones: older names, auxiliary heads, other image sizes; from a server, with their digest."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import small
from safetensors.torch import load_file, save_file
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings
from zoo_torchvision.build import backbone_of
from zoo_torchvision.catalogue import backbones, digest_prefix
from zoo_torchvision.load import convert

import zoo
from tests.faults.file_server import FileServer
from zoo.testing import randomise

LISTED = {spec.name: spec for spec in backbones()}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    with FileServer().serving() as started:
        yield started


def published(server: FileServer, architecture: str, state: object) -> zoo.Backbone:
    """Serve a checkpoint under a name as torchvision gives it; return the backbone that takes it from there."""
    stream = io.BytesIO()
    torch.save(state, stream)
    digest = hashlib.sha256(stream.getvalue()).hexdigest()[:8]
    path = f"/models/{architecture}-{digest}.pth"
    server.files[path] = stream.getvalue()
    weights = zoo.Weights(url=f"{server.url}{path}", sha256_prefix=digest_prefix(path), license="bsd-3-clause")
    return zoo.Backbone(LISTED[f"torchvision/{architecture}"].replace(weights=weights))


def test_a_published_network_is_fetched_adapted_trained_saved_and_opened_in_torchvision(server: FileServer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    home = randomise(models.resnet18(weights=None))
    model = published(server, "resnet18", home.state_dict()).adapt(2)
    assert torch.equal(model.backbone.layer1[0].conv1.weight, home.layer1[0].conv1.weight)
    images = np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), dtype=np.uint8)
    images[::2] //= 4
    run = model.fit((images, [0, 1] * 6), recipe="full", epochs=1, batch_size=4, image_size=32, out=tmp_path / "run", quiet=True)
    assert not torch.equal(model.backbone.layer1[0].conv1.weight, home.layer1[0].conv1.weight)
    opened = zoo.load(run.dir)
    twin = models.get_model("resnet18", num_classes=2).eval()
    twin.load_state_dict(load_file(run.dir / "model.safetensors"))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(twin(x), opened(x))
    assert len(server.asked) == 1


def test_a_file_of_another_digest_than_its_name_says_is_refused(server: FileServer) -> None:
    home = models.shufflenet_v2_x0_5(weights=None)
    backbone = published(server, "shufflenet_v2_x0_5", home.state_dict())
    (path,) = server.files
    server.files[path] += b"more"
    with pytest.raises(zoo.ZooError, match=f"begins with {path[-12:-4]}"):
        backbone.build()


@pytest.mark.parametrize("name", ["GoogLeNet", "Inception3"])
def test_auxiliary_heads_and_the_classifier_of_a_checkpoint_are_left_out(name: str) -> None:
    home = small(name)
    backbone = backbone_of(home)
    state = convert(small(name).state_dict(), backbone)
    assert set(state) - set(backbone.state_dict()) == {"fc.weight", "fc.bias"}
    assert set(backbone.state_dict()) <= set(state)


def test_a_pretrained_googlenet_with_auxiliary_heads_gives_torchvisions_features(tmp_path: Path) -> None:
    home = small("GoogLeNet", 1000)
    save_file(home.state_dict(), tmp_path / "googlenet.safetensors")
    backbone = zoo.get("torchvision/googlenet", weights=tmp_path / "googlenet.safetensors")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(home.fc(backbone.features(x).mean((2, 3))), home(x))


def test_older_names_are_read_as_torchvision_reads_them() -> None:
    dense = small("DenseNet")
    older = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value for key, value in dense.state_dict().items()}
    assert any(".norm.1." in key for key in older)
    assert convert(older, backbone_of(dense)).keys() == small("DenseNet").state_dict().keys()

    vit = small("VisionTransformer")
    older = {
        key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value for key, value in vit.state_dict().items()
    }
    twin = small("VisionTransformer")
    twin.load_state_dict(older)  # torchvision renames them too
    converted = convert(older, backbone_of(vit))
    assert converted.keys() == twin.state_dict().keys()
    assert all(torch.equal(converted[key], value) for key, value in twin.state_dict().items())


def test_position_embeddings_are_resampled_as_torchvision_resamples_them() -> None:
    published, module = small("VisionTransformer"), backbone_of(models.VisionTransformer(48, 8, 2, 2, 16, 32))
    converted = convert(published.state_dict(), module)
    expected = interpolate_embeddings(48, 8, published.state_dict())
    assert torch.equal(converted["encoder.pos_embedding"], expected["encoder.pos_embedding"])
    assert converted["encoder.pos_embedding"].shape == (1, 37, 16)


def test_a_saved_transformer_is_brought_to_another_image_size_by_the_same_rule(tmp_path: Path) -> None:
    model = zoo.get("torchvision/vit_b_32", weights=False, img_size=64).adapt(2)
    torch.nn.init.normal_(model.backbone.encoder.pos_embedding)
    after = zoo.get(model.save(tmp_path / "saved"), img_size=96).build()
    expected = interpolate_embeddings(96, 32, {"encoder.pos_embedding": model.backbone.encoder.pos_embedding.detach()})
    assert torch.equal(after.encoder.pos_embedding, expected["encoder.pos_embedding"])


def test_a_file_of_another_architecture_is_refused_with_its_names(tmp_path: Path) -> None:
    save_file(models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.safetensors")
    with pytest.raises(zoo.ZooError, match="is not in the file"):
        zoo.get("torchvision/resnet34", weights=tmp_path / "resnet18.safetensors").build()
