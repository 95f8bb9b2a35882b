"""The text tower of open_clip itself, with its names: of CLIP (Radford et al. 2021), SigLIP (Zhai et al. 2023), CoCa (Yu et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo_hf.open_clip_vit import Block


class OwnTextTower(nn.Module):
    """A transformer of texts; the features are those of one token, or of a learned one behind the text.

    Args:
        tower: As ``zoo_hf.open_clip_own.own_text`` gives it. Towers that were saved when only CLIP's was read lack its later entries.
        projection: Width of the space of images and texts; 0 where there is no projection.
    """

    def __init__(self, tower: Mapping[str, Any], projection: int) -> None:
        super().__init__()
        width, learned = tower["width"], bool(tower.get("class_token"))
        self.length, self.heads = tower["length"], tower["heads"]
        self.causal, self.pool, self.end = tower.get("causal", True), tower.get("pool", "argmax"), tower.get("end", 0)
        self.pad, self.unseen = tower.get("pad") if tower.get("whole") else None, tower.get("unseen", 0)
        self.left_out = tower.get("left_out")
        self.token_embedding = nn.Embedding(tower["vocabulary"], width)
        self.cls_emb = nn.Parameter(0.01 * torch.randn(width)) if learned else None
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(self.length + learned, width))
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(Block(tower) for _ in range(tower["layers"]))})
        self.ln_final = nn.LayerNorm(width, eps=tower["eps"])
        self.text_projection: nn.Parameter | nn.Linear | None = None
        if projection and tower.get("proj_bias"):
            self.text_projection = nn.Linear(width, projection)
        elif projection:
            self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, projection))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map texts to embeddings ``(batch, dim)``."""
        ids = self._padded(inputs)
        tokens = self.token_embedding(ids)
        if self.cls_emb is not None:
            tokens = torch.cat([tokens, self.cls_emb.expand(len(ids), 1, -1)], 1)
        tokens = tokens + self.positional_embedding[: tokens.shape[1]]
        hidden = self._hidden(ids)
        for block in self.transformer["resblocks"].children():
            tokens = block(tokens, hidden)
        found: Tensor = self.ln_final(tokens[torch.arange(len(ids), device=ids.device), self._pooled(ids)])
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection(found)  # type: ignore[no-any-return]  # a tensor
        return found if self.text_projection is None else found @ self.text_projection

    def _padded(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ids ``(batch, tokens)``, of all positions where the padding of a text is seen."""
        ids = inputs["input_ids"]
        if self.pad is None:
            return ids
        if "attention_mask" in inputs:
            ids = ids.masked_fill(inputs["attention_mask"] == 0, self.pad)
        if self.left_out is not None:
            ids = ids.masked_fill(ids == self.left_out, 0)
        return functional.pad(ids, (0, self.length - ids.shape[1]), value=self.pad)

    def _hidden(self, ids: Tensor) -> Tensor | None:
        """Return which token must not see which, as ``Block`` takes it; None where all see all."""
        count = ids.shape[1] + (self.cls_emb is not None)
        hidden = torch.ones(count, count, dtype=torch.bool, device=ids.device).triu(1) if self.causal else None
        if self.cls_emb is None:
            return hidden
        # The mask of open_clip's CoCa is one place too far to the right, and its weights were trained so: seen are the text, one token
        # of padding behind it, and the learned token only behind a text without padding.
        behind = functional.pad(ids.eq(self.unseen), (1, 0), value=False).unsqueeze(1).expand(-1, count, -1)
        return (behind if hidden is None else behind | hidden).repeat_interleave(self.heads, 0)

    def _pooled(self, ids: Tensor) -> Tensor:
        """Return the place of the token whose features are those of the text, ``(batch,)``."""
        if self.cls_emb is not None:
            return ids.new_full((len(ids),), ids.shape[1])
        if self.pool == "argmax":  # the token that ends a text has the largest number in CLIP's vocabulary
            return ids.argmax(1)
        if self.pool == "eos":
            return ids.eq(self.end).int().argmax(1)
        return ids.new_full((len(ids),), 0 if self.pool == "first" else ids.shape[1] - 1)


OWN_TEXT_LAYERS: Mapping[str, Sequence[str]] = {
    "embeddings": ["token_embedding", "positional_embedding", "cls_emb?"],
    "layer": ["transformer.resblocks.*", "ln_final", "text_projection?"],
}
