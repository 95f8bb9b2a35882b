"""Arguments of backbones that take others than ``input_ids`` and ``attention_mask``: functions of a configuration and a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad


def padded(config: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch with every text padded to all positions, for a backbone that mixes padding into the tokens beside it.

    Such a backbone (a Fourier transform over all tokens, a convolution) was pretrained on texts of this one length. Padded to the
    longest text of a batch, what a text gives would depend on the texts beside it.
    """
    return _padded(config, batch, config.max_position_embeddings - batch["input_ids"].shape[1])


def filled(config: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return token ids padded to all positions, all of which are attended, for a backbone that was pretrained so."""
    return {"input_ids": padded(config, batch)["input_ids"]}


def followed_by_padding(config: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch with a padding token behind every text, the longest too, for a backbone that reads the next token's embedding."""
    return _padded(config, batch, min(1, config.max_position_embeddings - batch["input_ids"].shape[1]))


def _padded(config: Any, batch: Mapping[str, Tensor], more: int) -> dict[str, Tensor]:
    ids = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, config.pad_token_id)
    others = {name: pad(value, (0, more)) for name, value in batch.items()}
    return {**others, "input_ids": pad(ids, (0, more), value=config.pad_token_id)}


def with_global_attention(config: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch whose first token attends to all tokens, and they to it, as Longformer's classifiers of texts have it."""
    first = torch.zeros_like(batch["input_ids"])
    first[:, 0] = 1
    return {**batch, "global_attention_mask": first}
