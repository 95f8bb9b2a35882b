"""What zoo saves, transformers opens with equal logits; where it cannot, the head that it could open is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TEXTS, as_padded, batch, opened
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)
from zoo_hf.declared_families import FAMILIES
from zoo_hf.home import export

import zoo
from zoo.testing import randomise

# Older transformers compile parts of DeBERTa with a function that newer torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")

PROBLEMS = {"single-label": "single_label_classification", "multi-label": "multi_label_classification", "regression": "regression"}


SEQUENCES = [kind for kind in TEXTS if FAMILIES[kind].sequence]
# Their classifiers of tokens are one module of the home library, or copies of another's.
SAME = {"ernie", "data2vec-text", "llama", "luke", "mistral", "mt5", "phi3", "qwen2", "smollm3", "umt5", "xlm-roberta-xl", "rembert", "gte"}
TOKENS = [pytest.param(kind, marks=[pytest.mark.sweep] * (kind in SAME)) for kind in TEXTS if FAMILIES[kind].tokens]


def adapted(kind: str, path: Path, **options: Any) -> Any:
    """Return a model with the head that the home library's classifier of texts is."""
    home = FAMILIES[kind].sequence
    assert home
    backbone = zoo.get(path, weights=False)
    head: dict[str, Any] = {}
    if home.head == "mlp":
        activation = getattr(backbone.build().config, home.activation.lower()) if home.activation.isupper() else home.activation
        head = {"head": "mlp", "hidden": 16, "activation": activation}
    return randomise(backbone.adapt(3, pool=home.pool, **head, **home.options, **options))


@pytest.mark.parametrize("kind", SEQUENCES)
def test_a_classifier_of_texts_opens_with_equal_logits(kind: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    model = adapted(kind, folder(kind, tokenizer=True), labels=["ant", "bee", "cow"])
    home = opened(AutoModelForSequenceClassification, model.save(tmp_path / "saved"))
    loaded = zoo.load(tmp_path / "saved")
    pad = home.config.pad_token_id
    with torch.no_grad():
        told = home(**as_padded(kind, batch(padding=pad), padding=pad)).logits
        torch.testing.assert_close(told, model(batch()))
        assert torch.equal(loaded(batch()), model(batch()))
    assert home.config.id2label == {0: "ant", 1: "bee", 2: "cow"}
    assert home.config.label2id == {"ant": 0, "bee": 1, "cow": 2}
    assert home.config.problem_type == "single_label_classification"
    assert loaded.labels == ("ant", "bee", "cow")


@pytest.mark.parametrize("kind", TOKENS)
def test_a_classifier_of_tokens_opens_with_equal_logits(kind: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    model = randomise(zoo.get(folder(kind, tokenizer=True), weights=False).adapt(3, task="token-classification", labels=["O", "B", "I"]))
    home = opened(AutoModelForTokenClassification, model.save(tmp_path / "saved"))
    with torch.no_grad():
        told = home(**as_padded(kind, batch(), padding=home.config.pad_token_id)).logits[:, :12]
        torch.testing.assert_close(told, model(batch()))
        assert torch.equal(zoo.load(tmp_path / "saved")(batch()), model(batch()))
    assert home.config.id2label == {0: "O", 1: "B", 2: "I"}


@pytest.mark.parametrize("task", PROBLEMS)
def test_classes_without_names_are_counted_right(task: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    model = randomise(zoo.get(folder("bert", tokenizer=True), weights=False).adapt(3, task=task))
    home = opened(AutoModelForSequenceClassification, model.save(tmp_path / "saved"))
    assert home.config.num_labels == 3
    assert home.config.problem_type == PROBLEMS[task]
    with torch.no_grad():
        torch.testing.assert_close(home(**batch()).logits, model(batch()))
    assert zoo.load(tmp_path / "saved").labels is None


def test_the_dropout_of_the_head_travels(folder: Callable[..., Path], tmp_path: Path) -> None:
    zoo.get(folder("bert", tokenizer=True), weights=False, hidden_dropout_prob=0.3).adapt(2, dropout=0.2).save(tmp_path / "saved")
    home = opened(AutoModelForSequenceClassification, tmp_path / "saved")
    assert home.dropout.p == 0.2
    assert home.bert.embeddings.dropout.p == 0.3


def test_the_tokenizer_opens_at_home_and_encodes_the_same(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder("bert", tokenizer=True)
    zoo.get(path, weights=False).adapt(2).save(tmp_path / "saved")
    texts = ["a very good film", "The plots is badly"]
    expected = AutoTokenizer.from_pretrained(path)(texts)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")(texts)["input_ids"] == expected["input_ids"]


def test_a_classifier_of_images_opens_with_equal_logits(folder: Callable[..., Path], tmp_path: Path) -> None:
    model: Any = randomise(zoo.get(folder("vit"), weights=False).adapt(3, labels=["ant", "bee", "cow"]))
    home = opened(AutoModelForImageClassification, model.save(tmp_path / "saved"))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(home(x).logits, model(x))
        assert torch.equal(zoo.load(tmp_path / "saved")(x), model(x))
    assert home.config.id2label == {0: "ant", 1: "bee", 2: "cow"}
    processor = AutoImageProcessor.from_pretrained(tmp_path / "saved", use_fast=False)
    assert tuple(processor.image_mean) == model.inputs.mean
    assert (processor.size["height"], processor.size["width"]) == (32, 32)


@pytest.mark.parametrize(
    ("kind", "options", "remedy"),
    [
        ("bert", {"pool": "avg"}, "adapt(3, pool='pooler')"),
        ("bert", {"head": "mlp"}, "adapt(3, pool='pooler')"),
        ("roberta", {}, "adapt(3, head='mlp', hidden=16, activation='tanh', pool='token')"),
        ("roberta", {"head": "mlp", "hidden": 8, "activation": "tanh"}, "hidden=16"),
        ("distilbert", {"head": "mlp", "hidden": 16, "activation": "tanh"}, "activation='relu'"),
        ("deberta-v2", {"task": "multi-label"}, "adapt(3, task='multi-label', head='mlp', hidden=16, activation='gelu', pool='token')"),
        ("modernbert", {}, "adapt(3, head='mlp', hidden=16, activation='gelu', norm=True, bias=False, pool='token')"),
        ("gpt2", {}, "adapt(3, bias=False, pool='last')"),
        ("t5", {}, "none of the heads"),
        ("modernbert", {"task": "token-classification"}, "none of the heads"),
        ("dinov2", {}, "none of the heads"),
        ("vit", {"pool": "avg"}, "adapt(3, pool='token')"),
    ],
)
def test_what_transformers_cannot_express_is_told(kind: str, options: dict[str, Any], remedy: str, folder: Callable[..., Path]) -> None:
    model = zoo.get(folder(kind), weights=False).adapt(3, **options)
    told = export(model)
    assert isinstance(told, str)
    assert remedy in told


def test_what_is_told_opens(folder: Callable[..., Path]) -> None:
    backbone = zoo.get(folder("roberta"), weights=False)
    told = export(backbone.adapt(3))
    assert isinstance(told, str)
    call = told.partition("adapt(")[2].partition(")")[0]
    assert isinstance(export(eval(f"backbone.adapt({call})", {"backbone": backbone})), dict)


def test_a_vision_transformer_of_another_size_says_so(folder: Callable[..., Path]) -> None:
    told = export(zoo.get(folder("vit"), weights=False, img_size=48).adapt(3))
    assert isinstance(told, str)
    assert "interpolate_pos_encoding" in told


def test_exporting_changes_nothing_in_the_model(folder: Callable[..., Path]) -> None:
    model = zoo.get(folder("bert"), weights=False).adapt(3).freeze(2).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.random.get_rng_state()
    export(model)
    assert model.training
    assert not model.backbone.encoder.layer[0].training  # type: ignore[union-attr, index]  # a list of modules
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
