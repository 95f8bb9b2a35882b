"""Masked language modelling of models of transformers: it starts from their published heads."""

from __future__ import annotations

import json
import logging
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.transfer import pretrain
from zoo.transfer.pretraining.mlm import MaskedWords

transformers = pytest.importorskip("transformers")
pytest.importorskip("zoo_hf")

WORDS = ("film", "plot", "is", "was", "the", "a", "good", "bad", "very", "long")
TEXTS = [" ".join(words) for words in product(WORDS[:2], WORDS[2:4], WORDS[4:6], WORDS[6:8], WORDS)][:128]
SHORT = {"vocab_size": 15, "max_position_embeddings": 40, "pad_token_id": 0}
BERT: dict[str, Any] = SHORT | {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
KINDS: dict[str, dict[str, Any]] = {
    "bert": BERT | STILL,
    "albert": BERT | STILL | {"embedding_size": 8},
    "roberta": BERT | STILL,
    "distilbert": SHORT | {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "dropout": 0.0, "attention_dropout": 0.0},
    "modernbert": BERT | {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
}


def published(kind: str, path: Path, **changes: Any) -> Any:
    """Write a model with a language-model head and its tokenizer, and return it in eval mode."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **KINDS[kind], **changes)
    model = transformers.AutoModelForMaskedLM.from_config(config)
    with torch.no_grad():  # biases and norms that differ from fresh ones
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(path)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokens = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    transformers.BertTokenizerFast(str(path / "vocab.txt")).backend_tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **tokens}))
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_loss_is_that_of_the_published_model_on_the_same_masked_batch(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, batches, masked = published(kind, tmp_path / "published"), [], MaskedWords._masked

    def noted(self: MaskedWords, one: Any) -> Any:
        found = masked(self, one)
        batches.append((one.x, *found))
        return found

    monkeypatch.setattr(MaskedWords, "_masked", noted)
    options: dict[str, Any] = {"epochs": 1, "batch_size": 128, "workers": 0, "quiet": True}
    run = pretrain(zoo.get(tmp_path / "published"), TEXTS, "mlm", out=tmp_path / "more", **options).run
    x, shown, targets = batches[0]
    with torch.no_grad():
        expected = home(input_ids=shown, attention_mask=x["attention_mask"], labels=targets).loss
    assert run.history[0]["steps"] == 1
    assert run.history[0]["train_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_a_head_that_is_not_tied_to_the_embeddings_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    published("bert", tmp_path / "published", tie_word_embeddings=False)
    with caplog.at_level(logging.INFO):
        options: dict[str, Any] = {"epochs": 1, "batch_size": 128, "workers": 0, "quiet": True}
        pretrain(zoo.get(tmp_path / "published"), TEXTS, "mlm", out=tmp_path / "more", **options)
    assert "starts from random values: the published one is not tied to the embeddings" in caplog.text
