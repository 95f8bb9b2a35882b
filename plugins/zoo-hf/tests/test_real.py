"""Real weights: a sentence encoder and a vision transformer give what transformers gives, and train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

import zoo

TEXTS = ["A remarkably good film.", "It is raining cats and dogs in the mountains today", "No."]
LENGTHS = 256


@pytest.fixture(scope="module")
def encoded(minilm: Path) -> dict[str, torch.Tensor]:
    """Texts as transformers' own tokenizer encodes them."""
    return dict(AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt"))


def test_features_of_minilm_equal_those_of_transformers_bit_for_bit(minilm: Path, encoded: dict[str, torch.Tensor]) -> None:
    home = AutoModel.from_pretrained(minilm).eval()
    with torch.no_grad():
        told = home(**encoded)
    backbone = zoo.get(minilm)
    assert torch.equal(backbone.features(encoded), told.last_hidden_state)
    assert torch.equal(zoo.get(minilm, pooler=True).features(encoded), told.pooler_output)
    assert len(backbone.groups) == 7


def test_embeddings_of_minilm_are_the_means_that_it_was_trained_with(minilm: Path, encoded: dict[str, torch.Tensor]) -> None:
    home = AutoModel.from_pretrained(minilm).eval()
    with torch.no_grad():
        hidden, mask = home(**encoded).last_hidden_state, encoded["attention_mask"][..., None]
    expected = (hidden * mask).sum(1) / mask.sum(1)
    told = zoo.get(minilm).adapt(2, normalize=False).embed(TEXTS)
    torch.testing.assert_close(torch.as_tensor(told), expected, rtol=1e-5, atol=1e-5)


def test_embeddings_of_minilm_equal_those_of_sentence_transformers(minilm: Path) -> None:
    home = pytest.importorskip("sentence_transformers").SentenceTransformer(str(minilm), device="cpu")
    told = zoo.get(minilm).adapt(2).embed(TEXTS)
    torch.testing.assert_close(torch.as_tensor(told), torch.as_tensor(home.encode(TEXTS)), rtol=1e-5, atol=1e-6)


def test_the_listed_minilm_is_the_real_one(minilm: Path) -> None:
    listed, local = zoo.get("all-minilm-l6-v2", weights=False).spec, zoo.get(minilm).spec
    assert (listed.features, listed.layers, listed.license) == (local.features, local.layers, local.license)
    assert listed.inputs == zoo.Text(max_length=LENGTHS, tokenizer=local.inputs.tokenizer, files=listed.inputs.files, max_positions=512)  # type: ignore[union-attr]  # a text
    filled = zoo.get("all-minilm-l6-v2", weights=minilm / "model.safetensors").build()
    assert sum(parameter.numel() for parameter in filled.parameters()) == listed.parameters
    assert all(torch.equal(a, b) for a, b in zip(filled.parameters(), zoo.get(minilm).build().parameters(), strict=True))


@pytest.mark.timeout(300)
def test_minilm_learns_saves_and_opens_at_home(minilm: Path, tmp_path: Path) -> None:
    good = ["a wonderful film", "great acting and a lovely story", "I enjoyed it very much", "brilliant and moving"]
    bad = ["a terrible film", "dull acting and a boring story", "I disliked it very much", "awful and tedious"]
    texts, labels = good + bad, ["good"] * 4 + ["bad"] * 4
    model = zoo.get(minilm).adapt(2, pool="pooler", labels=["bad", "good"])
    model.fit((texts, labels), (texts, labels), epochs=4, batch_size=4, lr=1e-3, out=str(tmp_path / "run"))
    assert model.evaluate((texts, labels))["accuracy"] == 1.0
    loaded = zoo.load(tmp_path / "run")
    assert loaded.predict(texts) == labels
    home = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").eval()
    batch = AutoTokenizer.from_pretrained(tmp_path / "run")(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        told = home(**batch).logits.argmax(1).tolist()
    assert [home.config.id2label[index] for index in told] == labels


@pytest.mark.timeout(300)
def test_minilm_learns_to_label_words_and_opens_at_home(minilm: Path, tmp_path: Path) -> None:
    sentences = [["patients", "with", "diabetes", "mellitus"], ["no", "asthma", "was", "seen"], ["we", "treated", "breast", "cancer"]]
    tags = [["O", "O", "B-Disease", "I-Disease"], ["O", "B-Disease", "O", "O"], ["O", "O", "B-Disease", "I-Disease"]]
    model = zoo.get(minilm).adapt(3, task="token-classification", labels=["O", "B-Disease", "I-Disease"])
    model.fit((sentences, tags), (sentences, tags), epochs=6, batch_size=3, lr=2e-3, out=str(tmp_path / "run"))
    assert zoo.load(tmp_path / "run").predict(sentences) == tags
    home, told = AutoModelForTokenClassification.from_pretrained(tmp_path / "run", output_loading_info=True)
    assert not {key: value for key, value in told.items() if value}
    assert home.config.id2label == {0: "O", 1: "B-Disease", 2: "I-Disease"}


def test_a_real_vision_transformer_equals_transformers(weights: Path, tmp_path: Path) -> None:
    path = weights / "vit_prenorm_cifar10" / "hf"
    classifier = AutoModelForImageClassification.from_pretrained(path).eval()
    backbone, x = zoo.get(path), torch.randn(2, 3, 32, 32)
    assert backbone.spec.inputs == zoo.Image(size=32, interpolation="bilinear", squash=True)
    with torch.no_grad():
        assert torch.equal(backbone.features(x), classifier.vit(x).last_hidden_state)
    model = backbone.adapt(10, labels=[classifier.config.id2label[index] for index in range(10)]).eval()
    model.head.linear.load_state_dict(classifier.classifier.state_dict())  # type: ignore[union-attr]  # the linear head
    model.save(tmp_path / "saved")
    home = AutoModelForImageClassification.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        assert torch.equal(home(x).logits, classifier(x).logits)
        torch.testing.assert_close(model(x), classifier(x).logits)
