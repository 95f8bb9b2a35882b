"""Dual encoders: both towers are backbones in one space, and a zero-shot head gives the logits of the home library's whole model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from test_find import hub as hub  # a fixture
from tiny import CONFIGS, one_file, some, words
from transformers import (
    AutoModel,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

import zoo
from zoo.testing import check_backbone, randomise

KINDS: dict[str, tuple[Any, Any]] = {
    "clip": (CLIPModel, CLIPConfig),
    "siglip": (SiglipModel, SiglipConfig),
    "siglip2": (Siglip2Model, Siglip2Config),
}
TEXTS = ["a very good film", "the plots is bad"]


@pytest.fixture
def whole(tmp_path: Path) -> Callable[[str], tuple[Path, Any]]:
    """Save a tiny dual encoder with a tokenizer and return its folder and itself."""

    def make(kind: str) -> tuple[Path, Any]:
        model, config = KINDS[kind]
        parts = {"text_config": CONFIGS[f"{kind}_text_model"], "vision_config": CONFIGS[f"{kind}_vision_model"]}
        net = randomise(model(config(**parts, **({"projection_dim": 8} if kind == "clip" else {})))).eval()
        path = tmp_path / kind
        net.save_pretrained(path)
        words(path)
        if kind == "siglip2":  # its tokenizer is that of Gemma, whatever the files say
            one_file(path)
            special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
            (path / "tokenizer_config.json").write_text(json.dumps({**special, "padding_side": "right"}))
        (path / "README.md").write_text("---\nlicense: mit\n---\n")
        return path, net

    return make


def pixels(kind: str, x: torch.Tensor) -> dict[str, Any]:
    """Return images as the home library takes them."""
    if kind != "siglip2":
        return {"pixel_values": x}
    processor = Siglip2ImageProcessor(patch_size=8, max_num_patches=16, do_resize=False, do_rescale=False, do_normalize=False)
    return dict(processor(list(x), return_tensors="pt", do_convert_rgb=False))


def ids(kind: str, path: Path, texts: list[str]) -> dict[str, Any]:
    """Return texts as the home library takes them: SigLIP was trained on texts padded to all positions."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    if kind == "clip":
        found = tokenizer(texts, padding=True, return_tensors="pt")
        return {name: found[name] for name in ("input_ids", "attention_mask")}
    return {"input_ids": tokenizer(texts, padding="max_length", max_length=40, return_tensors="pt")["input_ids"]}


@pytest.mark.parametrize("kind", KINDS)
def test_both_towers_give_the_embeddings_of_the_home_library(kind: str, whole: Callable[[str], tuple[Path, Any]]) -> None:
    path, home = whole(kind)
    x = torch.randn(2, 3, 32, 32)
    images, texts = zoo.get(path, tower="image"), zoo.get(path, tower="text")
    assert images.spec.features == zoo.Features(dim=8 if kind == "clip" else 16, layout="BD", prefix_tokens=int(kind == "clip"))
    assert images.groups.names == texts.groups.names == ("embeddings", "layer.0", "layer.1")
    with torch.no_grad():
        torch.testing.assert_close(images.features(x), home.get_image_features(**pixels(kind, x)).pooler_output)
        told = home.get_text_features(**ids(kind, path, TEXTS)).pooler_output
    model = texts.adapt(2)
    torch.testing.assert_close(torch.from_numpy(model.embed(TEXTS)), told, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_shot_logits_are_those_of_the_home_library(kind: str, whole: Callable[[str], tuple[Path, Any]], tmp_path: Path) -> None:
    path, home = whole(kind)
    model = zoo.get(path).zero_shot(["good", "bad", "very bad"], "a {} film").eval()
    x, prompts = torch.randn(4, 3, 32, 32), ["a good film", "a bad film", "a very bad film"]
    with torch.no_grad():
        expected = home(**pixels(kind, x), **ids(kind, path, prompts)).logits_per_image
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
        model.save(tmp_path / "saved")
        path.rename(tmp_path / "gone")
        assert torch.equal(zoo.load(tmp_path / "saved")(x), model(x))


@pytest.mark.parametrize("kind", some(KINDS, "clip"))  # the kit starts a process
def test_a_repository_gives_both_towers_without_network(
    kind: str, whole: Callable[[str], tuple[Path, Any]], hub: Callable[[str, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = whole(kind)
    monkeypatch.setenv("HF_HUB_CACHE", str(constants.HF_HUB_CACHE))  # for the process in which the kit opens the tokenizer
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub(f"acme/{kind}", path)
    assert constants.HF_HUB_OFFLINE
    name = f"hf/acme/{kind}"
    assert check_backbone(f"{name}/text") >= 10  # of the image tower's family test_image_families.py asks
    assert zoo.get(f"{name}/text").spec == zoo.get(name, tower="text").spec
    model = zoo.get(name).zero_shot(["good", "bad"])
    assert {*model.predict(torch.rand(3, 32, 32, 3).numpy())} <= {"good", "bad"}


def test_texts_are_classified_by_the_text_tower(whole: Callable[[str], tuple[Path, Any]], tmp_path: Path) -> None:
    path, _ = whole("clip")
    assert zoo.get(path / "text").spec == zoo.get(path, tower="text").spec
    model = zoo.get(f"{path}/text").adapt(2)
    model.fit((["good film", "bad film"] * 8, ["y", "n"] * 8), False, recipe="linear-probe", epochs=1, out=tmp_path / "run", quiet=True)
    assert zoo.load(tmp_path / "run").predict(["good film", "bad film"]) == ["y", "n"]


def test_the_padding_of_texts_is_the_tokenizers(whole: Callable[[str], tuple[Path, Any]]) -> None:
    path, _ = whole("siglip")
    (path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>", "added_tokens_decoder": {"7": {"content": "<pad>"}}}))
    assert zoo.get(path, tower="text").spec.options["config"]["pad_token_id"] == 7


def test_a_listed_dual_encoder_has_both_towers_without_network() -> None:
    spec = zoo.get("hf/openai/clip-vit-base-patch32").spec
    assert spec.features.dim == 768
    assert spec.pair is not None
    assert (spec.pair.features.dim, spec.pair.text.features.dim, spec.pair.text.inputs.max_length) == (512, 512, 77)  # type: ignore[union-attr]  # a text
    assert zoo.get("hf/openai/clip-vit-base-patch32/text").spec == zoo.get("hf/clip-vit-base-patch32", tower="text").spec
    assert zoo.get("hf/clip-vit-base-patch32/text").spec == zoo.get("hf/openai/clip-vit-base-patch32/text").spec


def test_what_has_no_text_tower_says_so(folder: Callable[..., Path]) -> None:
    for path in (folder("clip_vision_model", auto=AutoModel), folder("bert")):
        with pytest.raises(zoo.OptionError, match="has no text tower"):
            zoo.get(path, tower="text")
        with pytest.raises(zoo.OptionError, match="has no text tower"):
            zoo.get(path / "text")
    with pytest.raises(zoo.OptionError, match="has no text tower"):
        zoo.get(path, weights=False).zero_shot(["cat", "dog"])
    with pytest.raises(zoo.OptionError, match="did you mean 'text'"):
        zoo.get("hf/clip-vit-base-patch32", tower="txt")
    with pytest.raises(zoo.ZooError, match="is no dual encoder"):
        zoo.get("hf/google-bert/bert-base-uncased/text")


def test_a_projection_is_of_the_pooled_output_only() -> None:
    with pytest.raises(zoo.OptionError, match=r"takes its pooled output"):
        zoo.get("hf/clip_vision_model", weights=False, pooler=False, projection=8).build()
    with pytest.raises(zoo.OptionError, match="no projection"):
        zoo.get("hf/siglip_vision_model", weights=False, projection=8).build()


def test_images_that_are_not_cut_into_whole_patches_are_refused(whole: Callable[[str], tuple[Path, Any]]) -> None:
    path, _ = whole("siglip2")
    with pytest.raises(zoo.OptionError, match=r"multiples of 8 pixels, .* 36 x 32; the nearest image_size is 32 x 32"):
        zoo.get(path).features(torch.randn(1, 3, 36, 32))
