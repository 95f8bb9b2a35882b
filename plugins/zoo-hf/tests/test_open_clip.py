"""Dual encoders in open_clip's layout: the towers of BiomedCLIP's kind give what they give computed by hand, and by open_clip itself."""

from __future__ import annotations

import importlib.util
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from tiny import BERT, TEXT_CONFIGS, batch, words
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertModel
from zoo_hf.open_clip_build import convert_text, image_tower, text_tower
from zoo_hf.open_clip_own import own_tower
from zoo_hf.open_clip_vit import OwnImageTower

import zoo
from tests.faults.fake_hub import FakeHub
from zoo.testing import randomise

MODEL, WIDTH, TEXTS = "test_vit", 12, ["a very good film", "the plots is bad"]
SIDE = 160  # pixels of the smallest vision transformer of timm


def towers(pooler: str, proj: str, image: str = "linear") -> tuple[nn.Module, nn.Module]:
    """Return both towers with random values, their parts named as open_clip names them."""
    torch.manual_seed(0)
    trunk = timm.create_model(MODEL, num_classes=0)
    wide = OrderedDict(fc1=nn.Linear(trunk.num_features, 2 * WIDTH), act=nn.GELU(), fc2=nn.Linear(2 * WIDTH, WIDTH, bias=False))
    linear = nn.Linear(trunk.num_features, WIDTH, bias=False)
    head = nn.Sequential(OrderedDict(mlp=nn.Sequential(wide)) if image == "mlp" else OrderedDict(proj=linear))
    bert = BertModel(BertConfig(**BERT), add_pooling_layer=pooler == "cls_pooler")
    hidden = (16 + WIDTH) // 2
    mlp = nn.Sequential(nn.Linear(16, hidden, bias=False), nn.GELU(), nn.Linear(hidden, WIDTH, bias=False))
    text = nn.ModuleDict({"transformer": bert, "proj": mlp if proj == "mlp" else nn.Linear(16, WIDTH, bias=False)})
    return randomise(nn.ModuleDict({"trunk": trunk, "head": head})).eval(), randomise(text).eval()


def published(
    path: Path,
    pooler: str = "cls_last_hidden_state_pooler",
    proj: str = "mlp",
    image: str = "linear",
    own: nn.Module | None = None,
    **more: Any,
) -> dict[str, torch.Tensor]:
    """Write a dual encoder as BiomedCLIP is published into ``clip``, the configuration and tokenizer of its texts into ``bert``.

    The image tower is one of timm, or ``own``, which is described by ``vision_cfg``.
    """
    visual, text = towers(pooler, proj, image)
    visual = own or visual
    state = {f"visual.{name}": value for name, value in visual.state_dict().items()}
    state |= {f"text.{name}": value for name, value in text.state_dict().items()} | {"logit_scale": torch.tensor(3.0)}
    for folder in ("clip", "bert"):
        (path / folder).mkdir()
    torch.save(state, path / "clip" / "open_clip_pytorch_model.bin")
    config = {
        "embed_dim": WIDTH,
        "vision_cfg": {"timm_model_name": MODEL, "timm_pool": "", "timm_proj": image, "image_size": SIDE},
        "text_cfg": {
            "hf_model_name": "acme/bert",
            "hf_tokenizer_name": "acme/bert",
            "hf_proj_type": proj,
            "hf_pooler_type": pooler,
            "context_length": 24,
        },
    } | more
    told = {"model_cfg": config, "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}}
    (path / "clip" / "open_clip_config.json").write_text(json.dumps(told))
    (path / "clip" / "README.md").write_text("---\nlicense: mit\n---\n")
    (path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert", **BERT}))
    words(path / "bert")
    return state


def by_hand(
    path: Path, pooler: str, proj: str, x: torch.Tensor, texts: list[str], image: str = "linear"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the embeddings of images and of texts, computed without zoo."""
    visual, text = towers(pooler, proj, image)
    tokens = AutoTokenizer.from_pretrained(path / "bert")(texts, padding=True, return_tensors="pt")
    found = text["transformer"](**{name: tokens[name] for name in ("input_ids", "attention_mask")})  # type: ignore[index]  # a ModuleDict
    mask = tokens["attention_mask"][..., None]
    pooled = {
        "cls_last_hidden_state_pooler": found.last_hidden_state[:, 0],
        "mean_pooler": (found.last_hidden_state * mask).sum(1) / mask.sum(1),
        "cls_pooler": found.pooler_output,
    }[pooler]
    return visual["head"](visual["trunk"](x)), text["proj"](pooled)  # type: ignore[index]


@pytest.fixture
def repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Publish a dual encoder as ``acme/clip`` on a Hub in a thread, which the real client asks."""
    hub = FakeHub()

    def publish(**options: Any) -> None:
        published(tmp_path, **options)
        for name in ("clip", "bert"):
            hub.push(f"acme/{name}", {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})

    with hub.serving():
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield publish
    assert not hub.asked or any(asked.endswith("open_clip_config.json") for asked in hub.asked)


@pytest.mark.parametrize(
    ("pooler", "proj", "image"),
    [("cls_last_hidden_state_pooler", "mlp", "linear"), ("mean_pooler", "linear", "mlp"), ("cls_pooler", "linear", "linear")],
    ids=str,
)
def test_both_towers_give_what_their_parts_give(
    pooler: str, proj: str, image: str, tmp_path: Path, repositories: Callable[..., None]
) -> None:
    repositories(pooler=pooler, proj=proj, image=image)
    x = torch.randn(2, 3, SIDE, SIDE)
    images, texts = zoo.get("hf/acme/clip", tower="image"), zoo.get("hf/acme/clip", tower="text")
    assert images.spec.inputs == zoo.Image(size=SIDE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    with torch.no_grad():
        pictures, told = by_hand(tmp_path, pooler, proj, x, TEXTS, image)
        torch.testing.assert_close(images.features(x), pictures)
    torch.testing.assert_close(torch.from_numpy(texts.adapt(2).embed(TEXTS)), told, rtol=1e-4, atol=1e-5)
    assert images.groups.names == ("stem", *(f"block.{number}" for number in range(6)))
    assert texts.groups.names[:2] == ("embeddings", "layer.0")
    assert zoo.get("hf/acme/clip").spec.features.dim == 64  # before the projection


def test_a_zero_shot_model_is_that_of_the_towers_and_opens_without_them(tmp_path: Path, repositories: Callable[..., None]) -> None:
    repositories()
    model = zoo.get("hf/acme/clip").zero_shot(["good", "bad"], "a {} film").eval()
    x = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        images, texts = by_hand(tmp_path, "cls_last_hidden_state_pooler", "mlp", x, ["a good film", "a bad film"])
        cosines = functional.normalize(images, dim=1) @ functional.normalize(texts, dim=1).T
        torch.testing.assert_close(model(x), torch.tensor(3.0).exp() * cosines, rtol=1e-4, atol=1e-4)
        model.save(tmp_path / "saved")
        (tmp_path / "cache").rename(tmp_path / "gone")
        assert torch.equal(zoo.load(tmp_path / "saved")(x), model(x))


@pytest.mark.parametrize("more", [{}, {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 3}], ids=str)
def test_an_image_tower_of_open_clip_itself_is_read_adapted_and_saved(
    more: dict[str, Any], tmp_path: Path, repositories: Callable[..., None]
) -> None:
    vision = {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8} | more
    tower = randomise(OwnImageTower(own_tower(vision, WIDTH, quick_gelu=True)[0], (32, 32), WIDTH)).eval()
    repositories(own=tower, vision_cfg=vision, quick_gelu=True)
    encoder, x = zoo.get("hf/acme/clip"), torch.randn(2, 3, 32, 32)
    assert (encoder.spec.features.dim, encoder.spec.inputs.shape) == (WIDTH if more else 16, (3, 32, 32))
    images = zoo.get("hf/acme/clip", tower="image")
    assert images.groups.names == ("stem", "block.0", "block.1")
    model = encoder.zero_shot(["good", "bad"], "a {} film").eval()
    with torch.no_grad():
        torch.testing.assert_close(images.features(x), tower(x))
        model.save(tmp_path / "saved")
        (tmp_path / "cache").rename(tmp_path / "gone")
        assert torch.equal(zoo.load(tmp_path / "saved")(x), model(x))


def test_a_text_tower_is_a_backbone_of_its_own(tmp_path: Path, repositories: Callable[..., None]) -> None:
    repositories()
    model = zoo.get("hf/acme/clip/text").adapt(2)
    model.fit((["good film", "bad film"] * 8, ["y", "n"] * 8), False, recipe="linear-probe", epochs=1, out=tmp_path / "run", quiet=True)
    assert zoo.load(tmp_path / "run").predict(["good film", "bad film"]) == ["y", "n"]


def test_a_bias_of_the_logits_means_the_sigmoid_of_pairs(repositories: Callable[..., None]) -> None:
    repositories(init_logit_bias=-10)
    pair = zoo.get("hf/acme/clip", weights=False).spec.pair
    assert pair is not None
    assert (pair.loss, pair.bias, pair.bias_tensor) == ("sigmoid", -10.0, "logit_bias")


def test_what_is_not_read_is_told_at_once(repositories: Callable[..., None]) -> None:
    repositories(vision_cfg={"layers": [1, 1, 1], "width": 15}, text_cfg={"width": 16, "hf_pooler_type": "max_pooler"}, embed_dim=None)
    with pytest.raises(zoo.ZooError, match=r"(?s)layers is \[1, 1, 1\]; a ResNet has .* four stages.*embed_dim is None"):
        zoo.get("hf/acme/clip")


def test_numbers_that_are_none_are_told_at_once(repositories: Callable[..., None]) -> None:
    vision = {"timm_model_name": MODEL, "image_size": "large"}
    repositories(vision_cfg=vision, init_logit_scale="hot", init_logit_bias=1e9, embed_dim=True)
    faults = r"(?s)embed_dim is True.*image_size is 'large'.*init_logit_scale is 'hot'.*init_logit_bias is 1000000000.0"
    with pytest.raises(zoo.ZooError, match=faults):
        zoo.get("hf/acme/clip")


def test_values_that_are_null_have_those_of_open_clip(repositories: Callable[..., None]) -> None:
    repositories(vision_cfg={"timm_model_name": MODEL, "timm_pool": "", "image_size": None}, init_logit_scale=None)
    spec = zoo.get("hf/acme/clip", weights=False).spec
    assert spec.pair is not None
    assert (spec.inputs.shape, spec.pair.scale) == ((3, 224, 224), pytest.approx(1 / 0.07))


def test_the_encoder_of_an_encoder_and_decoder_is_read_by_itself() -> None:
    home = randomise(AutoModel.from_config(AutoConfig.for_model("mt5", **TEXT_CONFIGS["mt5"])).encoder).eval()
    tower = text_tower({"transformer": {"model_type": "mt5", **TEXT_CONFIGS["mt5"]}, "pooler": "mean_pooler", "proj": "linear"}, WIDTH)
    proj = torch.randn(WIDTH, 16)
    state = {f"text.transformer.{name}": value for name, value in home.state_dict().items()} | {"text.proj.weight": proj}
    tower.load_state_dict(convert_text(state, tower))
    given = batch()
    with torch.no_grad():
        mask = given["attention_mask"][..., None]
        pooled = (home(**given).last_hidden_state * mask).sum(1) / mask.sum(1)
        torch.testing.assert_close(tower.eval()(given), pooled @ proj.T, rtol=1e-4, atol=1e-5)


def test_no_option_makes_timm_read_another_file() -> None:
    with pytest.raises(zoo.OptionError, match="takes no checkpoint_path, pretrained_cfg: weights are chosen with"):
        image_tower({"model": MODEL}, checkpoint_path="values.pth", pretrained_cfg={"file": "values.pth"})


def test_another_way_to_resize_images_is_refused(tmp_path: Path) -> None:
    published(tmp_path)
    file = tmp_path / "clip" / "open_clip_config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"preprocess_cfg": told["preprocess_cfg"] | {"resize_mode": "longest"}}))
    with pytest.raises(zoo.ZooError, match=r"resize_mode is 'longest'; read are 'shortest'"):
        zoo.get(tmp_path / "clip")


def test_a_folder_is_found_by_a_relative_path_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(tmp_path, embed_dim=0)
    told = json.loads((tmp_path / "clip" / "open_clip_config.json").read_text())
    told["model_cfg"]["embed_dim"] = WIDTH
    monkeypatch.chdir(tmp_path)
    for name in ("clip", "./clip", Path("clip")):
        with pytest.raises(zoo.ZooError, match="embed_dim is 0"):
            zoo.get(name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "clip" / "open_clip_config.json").write_text(json.dumps(told))
    with pytest.raises(zoo.ZooError, match="zoo download hf/acme/bert"):  # hf/local/clip is no name on another machine
        zoo.get("clip")


def test_fields_that_are_not_known_are_told_with_the_nearest(tmp_path: Path) -> None:
    published(tmp_path, vision_cfg={"wdith": 16, "global_average_pool": False, "timm_pool": "avg", "image_size": 32})
    file = tmp_path / "clip" / "open_clip_config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"preprocess_cfg": {"intrepolation": "bilinear"}}))
    with pytest.raises(zoo.ZooError, match=r"'wdith' \(did you mean 'width'\?\).*'intrepolation' \(did you mean") as caught:
        zoo.get(tmp_path / "clip")
    assert "global_average_pool" not in str(caught.value)  # is off
    file.write_text(json.dumps(told["model_cfg"]))
    with pytest.raises(zoo.ZooError, match="no table model_cfg; it is the inner table alone"):
        zoo.get(tmp_path / "clip")


def test_a_network_whose_groups_are_not_known_is_refused(repositories: Callable[..., None]) -> None:
    repositories(vision_cfg={"timm_model_name": "test_resnet", "timm_pool": "avg"})
    with pytest.raises(zoo.ZooError, match="'test_resnet' of timm is a ResNet, which is not read"):
        zoo.get("hf/acme/clip")


@pytest.mark.parametrize(("told", "read"), [({}, "mlp"), ({"hf_proj_type": None}, ""), ({"proj": "linear"}, "linear")], ids=str)
def test_a_projection_of_texts_that_is_not_told_is_the_one_of_open_clip(
    told: dict[str, Any], read: str, repositories: Callable[..., None]
) -> None:
    repositories(text_cfg={"hf_model_name": "acme/bert", "hf_pooler_type": "mean_pooler", **told}, embed_dim=16)
    pair = zoo.get("hf/acme/clip", weights=False).spec.pair
    assert pair is not None
    assert pair.text.options["tower"]["proj"] == read


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="open_clip is not installed")
def test_the_towers_are_those_of_open_clip(tmp_path: Path, repositories: Callable[..., None]) -> None:
    import open_clip  # type: ignore[import-not-found,unused-ignore]

    repositories()
    told = json.loads((tmp_path / "clip" / "open_clip_config.json").read_text())["model_cfg"]
    told["text_cfg"] |= {"hf_model_name": str(tmp_path / "bert"), "hf_model_pretrained": False}
    home = open_clip.model.CustomTextCLIP(**told).eval()
    home.load_state_dict(torch.load(tmp_path / "clip" / "open_clip_pytorch_model.bin", weights_only=True))
    tokens = open_clip.tokenizer.HFTokenizer(str(tmp_path / "bert"), context_length=24)
    x = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(zoo.get("hf/acme/clip", tower="image").features(x), home.encode_image(x))
        expected = home.encode_text(tokens(TEXTS))
    found = zoo.get("hf/acme/clip", tower="text").adapt(2).embed(TEXTS)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
