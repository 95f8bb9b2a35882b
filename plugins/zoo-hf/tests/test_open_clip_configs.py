"""The configurations that open_clip ships: which are read, with the tensors of its own networks, and why the others are not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from tiny import words
from zoo_hf.open_clip_build import convert_text, image_layers, image_tower, text_layers, text_tower

import zoo
from tests.faults.fake_hub import FakeHub

# Text towers of transformers that these configurations name, by the model_type of their own.
ENCODERS = {
    "roberta-base": "roberta",
    "xlm-roberta-base": "xlm-roberta",
    "xlm-roberta-large": "xlm-roberta",
    "google/mt5-base": "mt5",
    "google/mt5-xl": "mt5",
    "facebook/nllb-200-distilled-600M": "m2m_100",
    "facebook/nllb-200-distilled-1.3B": "m2m_100",
}
REFUSED = {
    "nllb-clip-base": "'m2m_100'",
    "nllb-clip-base-siglip": "'m2m_100'",
    "nllb-clip-large": "'m2m_100'",
    "nllb-clip-large-siglip": "'m2m_100'",
    "swin_base_patch4_window7_224": "a SwinTransformer, which is not read",
    "vit_relpos_medium_patch16_cls_224": "a VisionTransformerRelPos, which is not read",
}


KEYS = ("mean", "std", "interpolation", "resize_mode")
open_clip: Any = pytest.importorskip("open_clip")
NAMES = sorted(open_clip.list_models())


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Hub that has the text encoders and the tokenizers that the configurations name, the encoders without weights."""
    folder = tmp_path_factory.mktemp("words")
    words(folder)
    tokenizer = {file.name: file.read_bytes() for file in folder.iterdir()}
    named = {open_clip.get_model_config(name)["text_cfg"].get("hf_tokenizer_name") for name in NAMES} - {None}
    hub = FakeHub()
    with hub.serving(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        for repo in {*ENCODERS, *named}:
            config = {"model_type": ENCODERS[repo]} if repo in ENCODERS else {}
            hub.push(repo, {**tokenizer, "config.json": json.dumps(config).encode()})
        yield


def shapes(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


@pytest.mark.sweep  # builds each network twice, without values
@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_has_the_tensors_of_open_clip_or_is_refused_by_name(name: str, hub: None, tmp_path: Path) -> None:
    config = open_clip.get_model_config(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    prepared = {key: value for key, value in (open_clip.get_pretrained_cfg(name, tags[0]) if tags else {}).items() if key in KEYS}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": prepared}))
    if name in REFUSED:
        with pytest.raises(zoo.ZooError, match=REFUSED[name]):
            zoo.get(tmp_path)
        return
    spec = zoo.get(tmp_path, weights=False).spec
    assert spec.pair is not None
    width, text, quick = config["embed_dim"], config["text_cfg"] | {"hf_model_pretrained": False}, config.get("quick_gelu", False)
    with torch.device("meta"):
        ours = image_tower(**spec.options, **spec.pair.options), text_tower(**spec.pair.text.options)
        home = (
            open_clip.model._build_vision_tower(width, config["vision_cfg"], quick),
            open_clip.model._build_text_tower(width, text, quick),
        )
    assert len(zoo.bind(ours[0], image_layers(ours[0]))) > 2
    assert len(zoo.bind(ours[1], text_layers(ours[1]))) > 2
    assert shapes(ours[0].state_dict()) == shapes(home[0].state_dict())
    told = {f"text.{key}": value for key, value in home[1].state_dict().items()}
    assert shapes(ours[1].state_dict()) == shapes(convert_text(told, ours[1]))
