"""Published files of texts: names that transformers renames, tensors that are left out, and decoders' padding tokens."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import batch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
from zoo_hf.home import export

import zoo
from tests.faults.fake_hub import FakeHub, in_child
from zoo.testing import randomise

# As published -> as the module has it; transformers holds the same in its table of conversions.
PUBLISHED = {
    "gte": [
        ("layers.", "new.encoder.layer."),
        ("embeddings", "new.embeddings"),
        ("post_attention_layernorm", "attn_ln"),
        ("post_mlp_layernorm", "mlp_ln"),
        ("self_attn.o_proj", "attention.o_proj"),
    ],
    "jina_embeddings_v3": [
        ("layers.", "roberta.encoder.layers."),
        ("embeddings.LayerNorm", "roberta.emb_ln"),
        ("embeddings", "roberta.embeddings"),
        ("post_attention_layernorm", "norm1"),
        ("post_mlp_layernorm", "norm2"),
        ("self_attn.o_proj", "mixer.out_proj"),
    ],
    "nomic_bert": [
        ("layers.", "encoder.layers."),
        ("embeddings.LayerNorm", "emb_ln"),
        ("post_attention_layernorm", "norm1"),
        ("post_mlp_layernorm", "norm2"),
        ("up_proj", "fc11"),
        ("gate_proj", "fc12"),
        ("down_proj", "fc2"),
        ("self_attn.o_proj", "attn.out_proj"),
    ],
}
JOINED = {"gte": "attention.qkv_proj", "jina_embeddings_v3": "mixer.Wqkv", "nomic_bert": "attn.Wqkv"}
CHILD = """
import json, sys, torch, zoo
kinds, ids, mask = json.loads(sys.argv[1])
given = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
print(json.dumps({kind: zoo.get(f"hf/acme/{kind}").features(given).tolist() for kind in kinds}))
"""


def published(kind: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state as the model's publisher names it: queries, keys and values as one matrix."""
    parts = {key: tensor for key, tensor in state.items() if "_proj" in key and any(f".{part}_proj" in key for part in "qkv")}
    joined = {
        key.replace("self_attn.q_proj", JOINED[kind]): torch.cat([parts[key.replace(".q_proj", f".{part}_proj")] for part in "qkv"])
        for key in parts
        if ".q_proj" in key
    }
    if kind == "gte":
        parts |= {key: tensor for key, tensor in state.items() if ".up_proj" in key or ".gate_proj" in key}
        joined |= {
            key.replace("up_proj", "up_gate_proj"): torch.cat([parts[key], parts[key.replace("up_proj", "gate_proj")]])
            for key in parts
            if ".up_proj" in key
        }
    renamed = {}
    for key, tensor in ({key: tensor for key, tensor in state.items() if key not in parts} | joined).items():
        name = key
        for ours, theirs in PUBLISHED[kind]:
            name = re.sub(f"^{ours}" if ours in ("layers.", "embeddings") else ours, theirs, name)
        renamed[name] = tensor.contiguous()
    return renamed


@pytest.mark.parametrize("kind", PUBLISHED)
def test_names_that_transformers_renames_are_understood(kind: str, folder: Callable[..., Path]) -> None:
    path = folder(kind, auto=AutoModel)
    expected = zoo.get(path, pooler=False).features(batch())
    module = zoo.get(path, pooler=False).build()
    other = published(kind, dict(module.state_dict()))
    assert not set(module.state_dict()) & {key for key in other if "layers" in key and "encoder" not in key}
    save_file(other, path / "model.safetensors")
    assert torch.equal(zoo.get(path, pooler=False).features(batch()), expected)


def test_files_of_published_names_are_read_from_the_hub(folder: Callable[..., Path], tmp_path: Path) -> None:
    hub, given, expected = FakeHub(), batch(), {}
    for kind in PUBLISHED:
        path = folder(kind, auto=AutoModel, tokenizer=True)
        backbone = zoo.get(path)
        expected[kind] = backbone.features(given)
        save_file(published(kind, dict(backbone.build().state_dict())), path / "model.safetensors")
        hub.push(f"acme/{kind}", {file.name: file.read_bytes() for file in path.iterdir()})
    asked = json.dumps([list(PUBLISHED), given["input_ids"].tolist(), given["attention_mask"].tolist()])
    with hub.serving():
        done = in_child(CHILD, asked, cache=tmp_path / "cache", HF_ENDPOINT=hub.url, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    assert done.returncode == 0, done.stderr
    for kind, features in json.loads(done.stdout).items():
        torch.testing.assert_close(torch.tensor(features), expected[kind])


def test_a_table_of_sines_is_in_no_file_and_never_trains(folder: Callable[..., Path]) -> None:
    path = folder("roformer", auto=AutoModel)
    expected = zoo.get(path).features(batch())
    state = load_file(path / "model.safetensors")
    save_file({key: value for key, value in state.items() if "embed_positions" not in key}, path / "model.safetensors")
    assert torch.equal(zoo.get(path).features(batch()), expected)
    model = zoo.get(path).adapt(2).freeze(1).unfreeze()
    assert not [name for name, _ in model.named_parameters() if "embed_positions" in name]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_masks_that_older_versions_saved_are_left_out(folder: Callable[..., Path]) -> None:
    path = folder("gpt2", auto=AutoModel)
    expected = zoo.get(path).features(batch())
    state = load_file(path / "model.safetensors")
    save_file({**state, "h.0.attn.bias": torch.ones(1, 1, 40, 40), "h.1.attn.masked_bias": torch.tensor(-1e4)}, path / "model.safetensors")
    assert torch.equal(zoo.get(path).features(batch()), expected)
    save_file({**state, "h.0.attn.other": torch.ones(4)}, path / "model.safetensors")
    with pytest.raises(zoo.ZooError, match=r"h\.0\.attn\.other"):
        zoo.get(path).build()


def vocabulary(path: Path, *, pad: bool = False, end: bool = False) -> None:
    """Write a tokenizer of whole words as language models have them: often without a padding token."""
    words = {"<end>": 0, "[UNK]": 1, **({"<pad>": 2} if pad else {}), "good": 5, "bad": 6, "film": 7, "a": 8}
    whole = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]  # its stub is a property without setter
    if end:
        whole.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 0)])  # type: ignore[assignment]
    whole.save(str(path / "tokenizer.json"))
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<end>",
        "unk_token": "[UNK]",
        **({"pad_token": "<pad>"} if pad else {}),
    }
    (path / "tokenizer_config.json").write_text(json.dumps(told))


@pytest.mark.parametrize("pad", [False, True])
def test_a_language_model_opens_with_the_padding_token_of_its_tokenizer(pad: bool, folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder("llama", pad_token_id=None)
    vocabulary(path, pad=pad)
    model: Any = randomise(zoo.get(path, weights=False).adapt(2, pool="last", bias=False, labels=["bad", "good"]))
    model.save(tmp_path / "saved")
    home = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    assert home.config.pad_token_id == (2 if pad else 0)
    texts = ["a good film", "bad"]
    tokens = AutoTokenizer.from_pretrained(tmp_path / "saved")(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = torch.softmax(home(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).logits, 1)
    torch.testing.assert_close(torch.from_numpy(model.predict_proba(texts)), expected)


def test_texts_that_end_in_the_padding_token_do_not_open_at_home(folder: Callable[..., Path]) -> None:
    path = folder("llama", pad_token_id=None)
    vocabulary(path, end=True)
    told = export(zoo.get(path, weights=False).adapt(2, pool="last", bias=False))
    assert isinstance(told, str)
    assert "padding token" in told


def test_a_language_model_without_any_padding_token_names_the_option(folder: Callable[..., Path]) -> None:
    path = folder("llama", pad_token_id=None, eos_token_id=None)
    told = export(zoo.get(path, weights=False).adapt(2, pool="last", bias=False))
    assert isinstance(told, str)
    assert "pad_token_id=N" in told
    assert isinstance(export(zoo.get(path, weights=False, pad_token_id=3).adapt(2, pool="last", bias=False)), dict)


def test_a_language_model_learns(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder("gpt2", auto=AutoModel)
    vocabulary(path)
    texts, labels = ["a good film", "good", "a bad film", "bad film", "good film", "bad"], ["+", "+", "-", "-", "+", "-"]
    model = zoo.get(path).adapt(2)
    run = model.fit((texts, labels), (texts, labels), epochs=2, batch_size=2, recipe="lp-ft", out=tmp_path / "run", quiet=True)
    assert len(run.history) == 2
    before = model.predict_proba(texts)
    assert (zoo.load(tmp_path / "run").predict_proba(texts) == before).all()


def test_the_pooling_of_the_last_token_is_read(folder: Callable[..., Path]) -> None:
    path = folder("qwen3")
    (path / "modules.json").write_text(
        json.dumps(
            [
                {"path": "", "type": "sentence_transformers.models.Transformer"},
                {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
            ]
        )
    )
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_lasttoken": True}))
    backbone = zoo.get(path, weights=False)
    assert (backbone.spec.features.pool, backbone.spec.features.normalize) == ("last", True)
    told = export(backbone.adapt(2, bias=False))  # the classifier of transformers does not scale features
    assert isinstance(told, str)
    assert "normalize=False" in told
    assert isinstance(export(backbone.adapt(2, bias=False, normalize=False)), dict)
