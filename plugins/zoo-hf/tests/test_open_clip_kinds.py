"""Every kind of dual encoder of open_clip gives the embeddings that open_clip gives, and takes part in everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from open_clip_kinds import KINDS, TEXTS, fill, pictures, publish
from tiny import some
from torch import nn
from torch.nn import functional
from zoo_hf.open_clip import from_open_clip
from zoo_hf.open_clip_build import image_tower, text_tower
from zoo_hf.source import Folder

import zoo
from tests.faults.fake_hub import FakeHub
from tests.multimodal.everything import lists_its_layers, takes_part_in_everything
from zoo.testing import check_backbone

# The first three values that open_clip 3.3.0 gives with the same tensors for the second image and the last two texts.
REFERENCES: dict[str, tuple[list[float], list[float], list[float]]] = {
    "resnet": ([0.007594, 0.161213, 0.195242], [-3.339649, -4.026114, 0.122555], [-2.313351, -3.262313, -0.293423]),
    "siglip": ([-0.54133, 0.406298, -0.27019], [-0.799697, -2.507993, 3.888169], [-1.089065, -1.460716, 2.801808]),
    "coca": ([4.216732, 1.231817, -2.689295], [-2.105063, -1.410388, 0.978082], [-1.900849, -1.299797, 0.862237]),
    "clipa": ([2.356624, 1.69182, -0.258789], [-2.163758, -3.883459, -0.939348], [-1.984986, -3.69369, -0.966483]),
    "worldwide": ([1.683207, 1.033353, -0.401862], [-1.627676, -2.402739, -0.29225], [-0.868929, -1.190764, -0.082559]),
    "mobileclip": ([-0.139454, 0.384532, -0.203688], [-3.387624, -4.068759, 0.136453], [-2.696234, -4.100293, -0.580135]),
    "convnext": ([0.327859, -0.10852, -0.202224], [-3.343045, -4.024666, 0.127106], [-2.313149, -3.259745, -0.291574]),
}


def some_pairs() -> list[Any]:
    """Return the kinds with their towers; most are for the long sweep."""
    chosen = (("resnet", ""),)
    pairs = [(kind, tower) for kind in KINDS for tower in ("", "/text")]
    return [pytest.param(*pair, marks=[] if pair in chosen else pytest.mark.sweep) for pair in pairs]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], tuple[nn.Module, nn.Module]]]:
    """Publish a dual encoder of a kind as ``acme/clip`` on a Hub in a thread, and return its towers."""
    hub = FakeHub()

    def make(kind: str) -> tuple[nn.Module, nn.Module]:
        empty = nn.Module(), nn.Module()
        publish(tmp_path / "shape", kind, empty)
        hub.push("acme/clip", {file.name: file.read_bytes() for file in (tmp_path / "shape").iterdir()})
        spec = from_open_clip("hf/acme/clip", Folder(tmp_path / "shape"))
        assert spec.pair is not None
        towers = image_tower(**spec.options, **spec.pair.options), text_tower(**spec.pair.text.options)
        publish(tmp_path / "clip", kind, (fill(towers[0], "visual."), fill(towers[1], "text.")))
        hub.push("acme/clip", {file.name: file.read_bytes() for file in (tmp_path / "clip").iterdir()})
        return towers

    with hub.serving():
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield make


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    """Return those of both images and of both texts, by zoo."""
    images, texts = zoo.get("hf/acme/clip", tower="image"), zoo.get("hf/acme/clip", tower="text")
    with torch.no_grad():
        found = images.features(pictures(images.spec.inputs.height))  # type: ignore[union-attr]  # an image
    return found, torch.from_numpy(texts.adapt(2).embed(TEXTS))


@pytest.mark.parametrize("kind", KINDS)
def test_the_embeddings_are_those_that_open_clip_gave(kind: str, published: Callable[..., Any]) -> None:
    published(kind)
    images, texts = embeddings()
    found = torch.stack([images[1, :3], texts[1, :3], texts[2, :3]])
    torch.testing.assert_close(found, torch.tensor(REFERENCES[kind]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_embeddings_are_those_of_open_clip(kind: str, published: Callable[..., Any], tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    towers = published(kind)
    config = {key: value for key, value in KINDS[kind].items() if key != "custom_text"}
    custom = open_clip.model.CustomTextCLIP if "custom_text" in KINDS[kind] else open_clip.model.CLIP
    home = (open_clip.coca_model.CoCa if kind == "coca" else custom)(**config).eval()
    text = home.text if "custom_text" in KINDS[kind] else home
    home.visual.load_state_dict(towers[0].state_dict())
    left = text.load_state_dict(towers[1].state_dict(), strict=False)
    assert not left.unexpected_keys
    assert not [name for name in left.missing_keys if not name.startswith(("visual.", "logit_"))]
    kwargs = KINDS[kind]["text_cfg"].get("tokenizer_kwargs", {})
    tokens = open_clip.tokenizer.HFTokenizer(str(tmp_path / "clip"), context_length=12, **kwargs)(TEXTS)
    with torch.no_grad():
        pictured = home.encode_image(pictures(KINDS[kind]["vision_cfg"]["image_size"]), normalize=False)
        told = home.encode_text(tokens, normalize=False)
    images, texts = embeddings()
    torch.testing.assert_close(images, pictured, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(texts, told, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", some(KINDS, "resnet", "coca"))
def test_a_kind_takes_part_in_everything(
    kind: str, published: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(kind)
    height = KINDS[kind]["vision_cfg"]["image_size"]
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, height, height, 3), dtype=torch.uint8, generator=rng).numpy()
    takes_part_in_everything("hf/acme/clip", images, tmp_path)
    lists_its_layers("hf/acme/clip", capsys)


@pytest.mark.parametrize("kind", some(KINDS, "siglip", "coca"))
def test_classes_are_told_by_their_names_and_a_tuned_text_tower_returns(kind: str, published: Callable[..., Any], tmp_path: Path) -> None:
    published(kind)
    zero = zoo.get("hf/acme/clip").zero_shot(["good", "bad"], "a {} film").eval()
    images, texts = zoo.get("hf/acme/clip", tower="image"), zoo.get("hf/acme/clip", tower="text").adapt(2)
    x, bias = pictures(KINDS[kind]["vision_cfg"]["image_size"]), -9.0 if kind == "siglip" else 0.0
    with torch.no_grad():
        embedded, told = images.features(x), torch.from_numpy(texts.embed(["a good film", "a bad film"]))
        cosines = functional.normalize(embedded, dim=1) @ functional.normalize(told, dim=1).T
        torch.testing.assert_close(zero(x), torch.tensor(3.0).exp() * cosines + bias, rtol=1e-4, atol=1e-4)
    texts.fit((["good film", "bad film"] * 4, ["y", "n"] * 4), False, recipe="full", epochs=1, out=tmp_path / "texts", quiet=True)
    again = zoo.load(tmp_path / "texts")
    assert np.array_equal(again.embed(TEXTS), texts.embed(TEXTS))
    assert isinstance(again.inputs, zoo.Text)
    assert again.inputs.tokenizer.endswith("canonical_tokenizer") == (kind == "siglip")


@pytest.mark.parametrize(("kind", "tower"), some_pairs())
def test_towers_keep_the_contract_of_a_backbone(
    kind: str, tower: str, published: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    published(kind)
    monkeypatch.setenv("HF_HUB_CACHE", str(constants.HF_HUB_CACHE))  # for the process in which the kit opens the tokenizer
    monkeypatch.setenv("HF_ENDPOINT", constants.ENDPOINT)
    assert check_backbone(f"hf/acme/clip{tower}") >= 10
