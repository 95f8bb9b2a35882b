"""Every family: the contract of a plugin holds, features are the home library's, published names are understood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIGS, TEXTS, batch
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM
from zoo_hf.families import FAMILIES

import zoo
from zoo.testing import check_backbone

# Older transformers compile parts of DeBERTa with a function that newer torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")

GROUPS = {"albert": ("embeddings", "shared", "pooler"), "bert": ("embeddings", "layer.0", "layer.1", "pooler")}


def test_every_family_has_a_tiny_configuration() -> None:
    assert CONFIGS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("kind", TEXTS)
def test_defaults_are_those_of_the_home_library(kind: str) -> None:
    family, config = FAMILIES[kind], AutoConfig.for_model(kind)
    assert getattr(config, family.width) == family.default_width
    assert config.max_position_embeddings == family.positions


@pytest.mark.parametrize("kind", TEXTS)
def test_a_family_keeps_the_contract_of_a_plugin(kind: str, folder: Callable[..., Path]) -> None:
    path = folder(kind, auto=AutoModel, tokenizer=True)
    (path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert check_backbone(str(path)) >= 10
    assert zoo.get(path, weights=False).groups.names == GROUPS.get(kind, ("embeddings", "layer.0", "layer.1"))


@pytest.mark.parametrize("kind", TEXTS)
def test_text_features_equal_those_of_the_home_library(kind: str, folder: Callable[..., Path]) -> None:
    path = folder(kind, auto=AutoModel)
    home = AutoModel.from_pretrained(path).eval()
    with torch.no_grad():
        told = home(**batch())
    pooled = [False, True] if FAMILIES[kind].pooler else [False]
    for pooler in pooled:
        backbone = zoo.get(path, **({"pooler": pooler} if FAMILIES[kind].pooler else {}))
        assert torch.equal(backbone.features(batch()), told.pooler_output if pooler else told.last_hidden_state)
        assert ("pooler" in backbone.groups.names) == pooler
        assert backbone.spec.features.layout == ("BD" if pooler else "BND")


@pytest.mark.parametrize("kind", TEXTS)
def test_heads_of_a_masked_language_model_are_left_out(kind: str, folder: Callable[..., Path]) -> None:
    path = folder(kind, auto=AutoModelForMaskedLM)
    home = AutoModelForMaskedLM.from_pretrained(path).eval()
    with torch.no_grad():
        told = home.base_model(**batch())
    options: dict[str, Any] = {"pooler": False} if FAMILIES[kind].pooler else {}
    assert torch.equal(zoo.get(path, **options).features(batch()), told.last_hidden_state)


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


def test_options_change_the_configuration(folder: Callable[..., Path]) -> None:
    path = folder("bert")
    module = zoo.get(path, weights=False, hidden_dropout_prob=0.3, attn_implementation="eager").build()
    assert module.embeddings.dropout.p == 0.3
    assert module.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"hidden_dropout_rate": 0.3}, ["'hidden_dropout_rate'", "'hidden_dropout_prob'"]),
        ({"num_labels": 3}, ["num_labels", "adapt(num_classes=…)"]),
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
