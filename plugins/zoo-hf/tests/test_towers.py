"""Repositories of images and texts together: the images' part is the backbone, the rest is left over on purpose."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo_hf
from test_image_families import told
from tiny import BERT, CONFIGS
from transformers import AutoImageProcessor, AutoModel, CLIPConfig, CLIPImageProcessor, CLIPModel, SiglipConfig, SiglipModel
from transformers import CLIPVisionModelWithProjection as Projection
from zoo_hf import declared_families

import zoo
from zoo.testing import randomise

TEXT = {**BERT, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "projection_dim": 8}
# What the configurations of the first published models hold beside what they need.
LEGACY: dict[str, Any] = {
    "_name_or_path": "",
    "add_cross_attention": False,
    "architectures": None,
    "bad_words_ids": None,
    "chunk_size_feed_forward": 0,
    "decoder_start_token_id": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "dropout": 0.0,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "is_decoder": False,
    "length_penalty": 1.0,
    "max_length": 20,
    "num_beams": 1,
    "output_attentions": False,
    "return_dict": True,
    "tie_encoder_decoder": False,
    "top_k": 50,
    "torch_dtype": None,
    "torchscript": False,
    "transformers_version": "4.16.0.dev0",
    "use_bfloat16": False,
}


@pytest.fixture
def whole(tmp_path: Path) -> Callable[[str], tuple[Path, Any]]:
    """Save a tiny model of images and texts and return its folder and itself."""

    def make(kind: str) -> tuple[Path, Any]:
        parts = {"text_config": TEXT, "vision_config": {**CONFIGS[f"{kind}_vision_model"], "projection_dim": 8}}
        model = CLIPModel(CLIPConfig(**parts, projection_dim=8)) if kind == "clip" else SiglipModel(SiglipConfig(**parts))
        randomise(model).save_pretrained(tmp_path / kind)
        return tmp_path / kind, model

    return make


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_images_part_is_taken_and_the_texts_part_is_named(
    kind: str, whole: Callable[[str], tuple[Path, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    path, model = whole(kind)
    backbone, x = zoo.get(path), torch.randn(2, 3, 32, 32)
    assert backbone.spec.base == f"hf/{kind}_vision_model"
    with caplog.at_level(logging.INFO, "zoo"), torch.no_grad():
        assert torch.equal(backbone.features(x), model.vision_model(x).pooler_output)
        assert torch.equal(zoo.get(path, pooler=False).features(x), model.vision_model(x).last_hidden_state)
    assert "not part of the backbone: " in caplog.text
    assert any(name in caplog.text for name in ("text_model.", "logit_scale"))


def test_a_model_saved_from_a_whole_one_needs_it_no_more(whole: Callable[[str], tuple[Path, Any]], tmp_path: Path) -> None:
    path, _ = whole("clip")
    model: Any = zoo.get(path).adapt(2).eval()
    model.save(tmp_path / "saved")
    path.rename(tmp_path / "gone")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(zoo.load(tmp_path / "saved")(x), model(x))


def test_a_tower_with_a_projection_is_a_backbone(tmp_path: Path, folder: Callable[..., Path]) -> None:
    path = folder("clip_vision_model", auto=AutoModel)
    model: Any = randomise(Projection(AutoModel.from_pretrained(path).config))
    model.save_pretrained(tmp_path / "projection")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(zoo.get(tmp_path / "projection").features(x), told(model.vision_model, x).pooler_output)


@pytest.mark.parametrize("form", ["legacy", "twice"])
def test_older_configurations_are_understood(form: str, whole: Callable[[str], tuple[Path, Any]]) -> None:
    path, model = whole("clip")
    config = json.loads((path / "config.json").read_text())
    vision = config["vision_config"]
    if form == "legacy":
        config["vision_config"] = {**LEGACY, **vision}
    else:
        config |= {"vision_config": {**vision, "num_hidden_layers": 12}, "vision_config_dict": vision}
    (path / "config.json").write_text(json.dumps(config))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(zoo.get(path).features(x), model.vision_model(x).pooler_output)


def test_the_preparation_is_read_from_the_newer_file_first_as_transformers_does(whole: Callable[[str], tuple[Path, Any]]) -> None:
    path, _ = whole("clip")
    (path / "preprocessor_config.json").write_text(json.dumps({"size": 99, "crop_size": 88}))
    processor = CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 30, "width": 30}, image_mean=[0.1, 0.2, 0.3])
    (path / "processor_config.json").write_text(json.dumps({"image_processor": processor.to_dict(), "processor_class": "CLIPProcessor"}))
    inputs = zoo.get(path, weights=False).spec.inputs
    assert isinstance(inputs, zoo.Image)
    assert (inputs.size, inputs.crop, inputs.mean, inputs.interpolation) == ((30, 30), 0.75, (0.1, 0.2, 0.3), "bicubic")
    theirs = AutoImageProcessor.from_pretrained(path)
    assert (theirs.size.shortest_edge, theirs.crop_size.height) == (40, 30)
    (path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))  # as of transformers 4
    assert zoo.get(path, weights=False).spec.inputs.size == (88, 88)  # type: ignore[union-attr]  # images


def test_the_refusal_of_another_model_names_the_whole_ones_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blip", "vision_config": {}}))
    with pytest.raises(zoo.ZooError, match=r"'blip' .* of clip and siglip and siglip2 only"):
        zoo.get(tmp_path)


def test_the_name_of_a_whole_model_leads_to_its_part() -> None:
    with pytest.raises(zoo.ZooError, match="'hf/siglip_vision_model'"):
        zoo.get("hf/siglip")


def test_the_images_part_of_a_family_of_ones_own_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared_families, "FAMILIES", dict(declared_families.FAMILIES))
    zoo_hf.register("chinese_clip_vision_model", replace(declared_families.FAMILIES["clip_vision_model"], composite="chinese_clip"))
    vision = CONFIGS["clip_vision_model"]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "chinese_clip", "vision_config": vision}))
    backbone = zoo.get(tmp_path, weights=False)
    assert backbone.groups.names == ("embeddings", "layer.0", "layer.1")
    assert backbone.spec.options["config"] == {**vision, "model_type": "chinese_clip_vision_model"}
    assert backbone.build()(torch.zeros(2, 3, 48, 32)).shape == (2, 16)
