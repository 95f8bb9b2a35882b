"""Every family: the contract of a plugin holds, features are the home library's, published names are understood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIGS, ONE_FILE, TEXTS, as_padded, batch, one_file, some
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTextEncoding,
)
from zoo_hf.declared_families import FAMILIES

import zoo
from zoo.testing import check_backbone, randomise

# Older transformers compile parts of DeBERTa with a function that newer torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")

PLAIN = ("embeddings", "layer.0", "layer.1")
POOLED = {"bert", "ernie", "luke", "megatron-bert", "rembert"}
DECODERS = {"gemma3_text", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3", "smollm3"}
ENCODERS = {"mt5", "t5", "umt5"}  # of encoder-decoders
# One of each kind in every run; the others where there is time.
FIRST = {"albert", "bert", "deberta-v2", "fnet", "gpt2", "longformer", "modernbert", "nomic_bert", "roberta", "t5"}
KIT = {"bert"}  # its check of the tokenizer starts a process


def recommended(kind: str, padding: int) -> dict[str, torch.Tensor]:
    """Return a batch for the home library's plain model, with the global attention that its classifier of texts has."""
    given = as_padded(kind, batch(), padding=padding)
    return given | ({"global_attention_mask": (torch.arange(12) == 0).long().expand(2, 12)} if kind == "longformer" else {})


def auto(kind: str) -> Any:
    """Return the class of the home library that opens the backbone."""
    return AutoModelForTextEncoding if kind in ENCODERS else AutoModel


def test_every_family_has_a_tiny_configuration() -> None:
    assert CONFIGS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("kind", TEXTS)
def test_defaults_are_those_of_the_home_library(kind: str) -> None:
    family, config = FAMILIES[kind], AutoConfig.for_model(kind)
    assert getattr(config, family.width) == family.default_width
    assert getattr(config, family.length, 512) == family.positions


@pytest.mark.parametrize("kind", some(TEXTS, *KIT))
def test_a_family_keeps_the_contract_of_a_plugin(kind: str, folder: Callable[..., Path]) -> None:
    path = folder(kind, auto=auto(kind), tokenizer=True)
    if kind in ONE_FILE:
        one_file(path)
    (path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert check_backbone(str(path)) >= 10
    layers = ("embeddings", "shared") if kind == "albert" else PLAIN
    pooler = ("pooler",) if kind in POOLED | {"albert"} else ()
    assert zoo.get(path, weights=False).groups.names == layers + pooler


@pytest.mark.parametrize("kind", TEXTS)
def test_text_features_equal_those_of_the_home_library(kind: str, folder: Callable[..., Path]) -> None:
    path = folder(kind, auto=auto(kind))
    home = auto(kind).from_pretrained(path).eval()
    with torch.no_grad():
        told = home(**recommended(kind, home.config.pad_token_id))
    optional = FAMILIES[kind].pooler and told.get("pooler_output") is not None
    for pooler in [False, True] if optional else [False]:
        backbone = zoo.get(path, **({"pooler": pooler} if FAMILIES[kind].pooler else {}))
        assert torch.equal(backbone.features(batch()), told.pooler_output if pooler else told.last_hidden_state[:, :12])
        assert ("pooler" in backbone.groups.names) == (pooler and "pooler" in FAMILIES[kind].layers)
        assert backbone.spec.features.layout == ("BD" if pooler else "BND")


@pytest.mark.parametrize("kind", TEXTS)
def test_neither_padding_nor_other_texts_change_what_a_text_gives(kind: str, folder: Callable[..., Path]) -> None:
    options: dict[str, Any] = {"pooler": False} if FAMILIES[kind].pooler else {}
    module: Any = randomise(zoo.get(folder(kind), weights=False, **options).build())
    other, given = batch(padding=9), batch()
    with torch.no_grad():
        features, again = module(given)[1, :6], module(other)[1, :6]
        alone = module({name: value[1:, :6] for name, value in given.items()})[0]
    torch.testing.assert_close(features, again, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(features, alone, rtol=1e-4, atol=1e-5)


def test_the_first_token_of_a_longformer_attends_to_all(folder: Callable[..., Path]) -> None:
    path = folder("longformer", auto=AutoModel)
    home, given = AutoModel.from_pretrained(path).eval(), batch()
    first = (torch.arange(12) == 0).long().expand(2, 12)
    with torch.no_grad():
        expected = home(**given, global_attention_mask=first).last_hidden_state
        assert not torch.allclose(expected, home(**given).last_hidden_state)
    assert torch.equal(zoo.get(path).features(given), expected)


@pytest.mark.parametrize("kind", some(TEXTS, *FIRST))
def test_the_head_and_the_decoder_of_a_language_model_are_left_out(kind: str, folder: Callable[..., Path]) -> None:
    language = AutoModelForSeq2SeqLM if kind in ENCODERS else AutoModelForCausalLM if kind in DECODERS else AutoModelForMaskedLM
    path = folder(kind, auto=language)
    home = language.from_pretrained(path).eval()
    encoder = home.get_encoder() if kind in ENCODERS else home.base_model
    with torch.no_grad():
        told = encoder(**recommended(kind, home.config.pad_token_id))
    options: dict[str, Any] = {"pooler": False} if FAMILIES[kind].pooler else {}
    assert torch.equal(zoo.get(path, **options).features(batch()), told.last_hidden_state[:, :12])


def test_a_model_without_pooler_is_refused_where_the_pooler_is_asked_for(folder: Callable[..., Path]) -> None:
    path = folder("bert", auto=AutoModelForMaskedLM)
    with pytest.raises(zoo.ZooError, match=r"pooler\.dense\.weight"):
        zoo.get(path).build()


def test_the_norms_of_old_files_are_understood(folder: Callable[..., Path]) -> None:
    path = folder("bert", auto=AutoModel)
    expected = zoo.get(path).features(batch())
    state = load_file(path / "model.safetensors")
    old = {
        f"bert.{key.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')}": state[key]
        for key in state
    }
    old["cls.predictions.bias"] = torch.zeros(60)
    save_file(old, path / "model.safetensors")
    assert torch.equal(zoo.get(path).features(batch()), expected)


def test_half_precision_files_become_single_precision(folder: Callable[..., Path]) -> None:
    path = folder("bert", auto=AutoModel)
    state = load_file(path / "model.safetensors")
    save_file({key: value.half() for key, value in state.items()}, path / "model.safetensors")
    assert {parameter.dtype for parameter in zoo.get(path).build().parameters()} == {torch.float32}


def test_full_attention_of_big_bird_is_a_default_that_an_option_changes(folder: Callable[..., Path]) -> None:
    path = folder("big_bird", attention_type="block_sparse")
    assert zoo.get(path, weights=False).build().config.attention_type == "original_full"
    assert zoo.get(path, weights=False, attention_type="block_sparse").build().config.attention_type == "block_sparse"


def test_options_change_the_configuration(folder: Callable[..., Path]) -> None:
    path = folder("bert")
    module = zoo.get(path, weights=False, hidden_dropout_prob=0.3, attn_implementation="eager").build()
    assert module.embeddings.dropout.p == 0.3
    assert module.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"hidden_dropout_rate": 0.3}, ["'hidden_dropout_rate'", "'hidden_dropout_prob'"]),
        ({"output_stride": 8}, ["'output_stride'; it has: ", "attn_implementation"]),
        ({"output_hidden_states": True}, ["'output_hidden_states'"]),
        ({"model_type": "roberta"}, ["'model_type'"]),
        ({"num_labels": 3}, ["num_labels", "adapt(num_classes=3)"]),
        ({"hidden_size": 32}, ["hidden_size", "config.json"]),
        ({"attn_implementation": "owner/kernels"}, ["owner/kernels", "eager, sdpa"]),
        ({"trust_remote_code": True}, ["trust_remote_code", "never"]),
        ({"num_attention_heads": 3}, ["num_attention_heads"]),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], facts: list[str], folder: Callable[..., Path]) -> None:
    with pytest.raises(zoo.OptionError) as caught:
        zoo.get(folder("bert"), weights=False, **options).build()
    assert all(fact in str(caught.value) for fact in facts), caught.value
