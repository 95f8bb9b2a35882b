"""The text tower of open_clip itself, which is that of CLIP (Radford et al. 2021), with its names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo_hf.open_clip_vit import Block


class OwnTextTower(nn.Module):
    """A transformer of which each token sees those before it; the features are those of the token that ends the text.

    Args:
        tower: As ``zoo_hf.open_clip_own.own_text`` gives it.
        projection: Width of the space of images and texts; 0 where there is no projection.
    """

    def __init__(self, tower: Mapping[str, Any], projection: int) -> None:
        super().__init__()
        width = tower["width"]
        self.token_embedding = nn.Embedding(tower["vocabulary"], width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(tower["length"], width))
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(Block(tower) for _ in range(tower["layers"]))})
        self.ln_final = nn.LayerNorm(width, eps=tower["eps"])
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, projection)) if projection else None

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map texts to embeddings ``(batch, dim)``; what stands behind the end of a text is not seen."""
        ids = inputs["input_ids"]
        tokens = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        hidden = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1)
        for block in self.transformer["resblocks"].children():
            tokens = block(tokens, hidden)
        # The token that ends a text has the largest number in CLIP's vocabulary, as open_clip takes it.
        found: Tensor = self.ln_final(tokens)[torch.arange(len(ids), device=ids.device), ids.argmax(1)]
        return found if self.text_projection is None else found @ self.text_projection


OWN_TEXT_LAYERS: Mapping[str, Sequence[str]] = {
    "embeddings": ["token_embedding", "positional_embedding"],
    "layer": ["transformer.resblocks.*", "ln_final", "text_projection?"],
}
