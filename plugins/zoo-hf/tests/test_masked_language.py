"""Masked language modelling of models of transformers: it starts from their published heads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import one_file
from transformers import AutoModelForMaskedLM

import zoo
from zoo.transfer import pretrain
from zoo.transfer.pretraining.mlm import MaskedWords

Folder = Callable[..., Path]
TEXTS = [
    f"the {' '.join(words)}"
    for words in product(("film", "plot", "plots", "very"), ("is", "a", "good"), ("good", "bad", "the"), ("a", "is", "film"))
]
STILL: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
KINDS: dict[str, dict[str, Any]] = {
    "bert": STILL,
    "roberta": STILL | {"pad_token_id": 0},
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0},
    "modernbert": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_loss_is_that_of_the_published_model_on_the_same_masked_batch(
    kind: str, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(kind, auto=AutoModelForMaskedLM, tokenizer=True, **KINDS[kind])
    if kind == "modernbert":
        one_file(path)
    home = AutoModelForMaskedLM.from_pretrained(path)
    with torch.no_grad():  # biases and norms that differ from fresh ones, and logits that differ
        for parameter in home.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    home.eval().save_pretrained(path)
    batches: list[Any] = []
    masked = MaskedWords._masked

    def noted(self: MaskedWords, one: Any) -> Any:
        found = masked(self, one)
        batches.append((one.x, *found))
        return found

    monkeypatch.setattr(MaskedWords, "_masked", noted)
    run = pretrain(zoo.get(path), TEXTS, "mlm", epochs=1, batch_size=100, workers=0, quiet=True, out=tmp_path / "more").run
    x, shown, targets = batches[0]
    with torch.no_grad():
        expected = home(input_ids=shown, attention_mask=x["attention_mask"], labels=targets).loss
    assert run.history[0]["steps"] == 1
    assert run.history[0]["train_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_a_head_that_is_not_tied_to_the_embeddings_is_not_taken(folder: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder("bert", auto=AutoModelForMaskedLM, tokenizer=True, tie_word_embeddings=False)
    with caplog.at_level(logging.INFO):
        pretrain(zoo.get(path), TEXTS, "mlm", epochs=1, batch_size=100, workers=0, quiet=True, out=tmp_path / "more")
    assert "starts from random values: the published one is not tied to the embeddings" in caplog.text
