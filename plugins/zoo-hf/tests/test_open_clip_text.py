"""The text tower of open_clip itself gives what CLIP of transformers and open_clip give, and is read with and without a prefix."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_open_clip import WIDTH
from test_open_clip_vit import SIZE, VISION, made
from tiny import words
from transformers import CLIPTextConfig, CLIPTextModelWithProjection
from zoo_hf.open_clip_own import own_text
from zoo_hf.open_clip_text import OwnTextTower

import zoo
from zoo.testing import randomise

TEXT: dict[str, Any] = {"context_length": 12, "vocab_size": 60, "width": 16, "heads": 2, "layers": 2}
IDS = torch.tensor([[5, 9, 8, 59, 0, 0], [5, 7, 59, 0, 0, 0]])  # 59 ends a text


def text_tower(*, quick_gelu: bool = False, **more: Any) -> OwnTextTower:
    torch.manual_seed(0)
    tower, faults = own_text(TEXT | more, quick_gelu=quick_gelu)
    assert not faults
    return randomise(OwnTextTower(tower, WIDTH)).eval()


def published(path: Path, prefix: str, **more: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Write a dual encoder of open_clip's own towers into a folder with its tokenizer; OpenAI's has no prefix before texts."""
    visual, text = made({}), text_tower()
    state = {f"visual.{name}": value for name, value in visual.state_dict().items()}
    state |= {f"{prefix}{name}": value for name, value in text.state_dict().items()} | {"logit_scale": torch.tensor(3.0)}
    path.mkdir()
    torch.save(state, path / "open_clip_pytorch_model.bin")
    model = {"embed_dim": WIDTH, "vision_cfg": VISION | {"image_size": SIZE}, "text_cfg": TEXT | more}
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    words(path)
    return visual, text


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_it_is_the_text_tower_of_clip(quick_gelu: bool) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": WIDTH}
    act = {"hidden_act": "quick_gelu" if quick_gelu else "gelu", "vocab_size": 60, "max_position_embeddings": 12, "eos_token_id": 59}
    theirs = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, **act, bos_token_id=5, pad_token_id=0)).eval()
    state, values = text_tower(quick_gelu=quick_gelu).state_dict(), {}
    values["embeddings.token_embedding.weight"] = state["token_embedding.weight"]
    values["embeddings.position_embedding.weight"] = state["positional_embedding"]
    values |= {f"final_layer_norm.{end}": state[f"ln_final.{end}"] for end in ("weight", "bias")}
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"} | {
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for layer in range(2):
        for end in ("weight", "bias"):
            ours, inner = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
            values |= {f"{inner}.{b}.{end}": state[f"{ours}.{a}.{end}"] for a, b in parts.items()}
            thirds = state[f"{ours}.attn.in_proj_{end}"].chunk(3)
            values |= {f"{inner}.self_attn.{key}_proj.{end}": part for key, part in zip("qkv", thirds, strict=True)}
    missing = theirs.text_model.load_state_dict(values, strict=False).missing_keys
    assert not [name for name in missing if "position_ids" not in name]
    theirs.text_projection.weight.data = state["text_projection"].T.contiguous()
    with torch.no_grad():
        expected = theirs(input_ids=IDS).text_embeds
        torch.testing.assert_close(text_tower(quick_gelu=quick_gelu)({"input_ids": IDS}), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "text."], ids=["as OpenAI's", "custom"])
def test_both_towers_are_read_with_and_without_a_prefix(prefix: str, tmp_path: Path) -> None:
    visual, text = published(tmp_path / "clip", prefix)
    x = torch.randn(2, 3, SIZE, SIZE)
    images, texts = zoo.get(tmp_path / "clip", tower="image"), zoo.get(tmp_path / "clip/text")
    assert texts.groups.names == ("embeddings", "layer.0", "layer.1")
    with torch.no_grad():
        torch.testing.assert_close(images.features(x), visual(x))
        torch.testing.assert_close(texts.features({"input_ids": IDS}), text({"input_ids": IDS}))
    model = zoo.get(tmp_path / "clip").zero_shot(["good", "bad"], "a {} film")
    model.save(tmp_path / "saved")
    assert torch.equal(zoo.load(tmp_path / "saved")(x), model.eval()(x))
    tuned = texts.adapt(2)
    tuned.fit((["good film", "bad film"] * 4, ["y", "n"] * 4), False, recipe="linear-probe", out=tmp_path / "run", quiet=True)
    assert zoo.load(tmp_path / "run").predict(["good film"]) == ["y"]


def test_other_text_towers_are_refused_by_what_they_have(tmp_path: Path) -> None:
    published(tmp_path / "clip", "", pool_type="none", qk_norm=True, width=15, tokenizer_kwargs={"clean": "lower", "languge": "de"})
    told = r"(?s)width is 15, which 2 heads.*pool_type of texts is 'none'; read is argmax.*'qk_norm'.*'languge'.*cleans texts by 'lower'"
    with pytest.raises(zoo.ZooError, match=told):
        zoo.get(tmp_path / "clip")
    published(tmp_path / "plain", "", proj_type="none")
    with pytest.raises(zoo.ZooError, match=f"has no projection of texts .* 16 values and not the {WIDTH} of embed_dim"):
        zoo.get(tmp_path / "plain")


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="open_clip is not installed")
@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize(
    "more", [{}, {"act_kwargs": {"approximate": "tanh"}, "ls_init_value": 0.1, "norm_kwargs": {"eps": 1e-3}}], ids=["plain", "kwargs"]
)
def test_it_is_the_one_of_open_clip(quick_gelu: bool, more: dict[str, Any]) -> None:
    import open_clip  # type: ignore[import-not-found,unused-ignore]

    if quick_gelu and more:
        pytest.skip("quick_gelu takes no act_kwargs")
    home = open_clip.model._build_text_tower(WIDTH, TEXT | more, quick_gelu=quick_gelu).eval()
    ours = text_tower(quick_gelu=quick_gelu, **more)
    home.load_state_dict(ours.state_dict())
    whole = torch.nn.functional.pad(IDS, (0, 6))  # open_clip pads to the whole length
    with torch.no_grad():
        torch.testing.assert_close(ours({"input_ids": IDS}), home(whole), rtol=1e-4, atol=1e-5)
