"""The vision transformer of open_clip itself, which is that of CLIP (Radford et al. 2021), with its names and its ways of pooling."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

QUICK = 1.702  # of the sigmoid in OpenAI's approximation of GELU


class QuickGelu(nn.Module):
    """``x * sigmoid(1.702 x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Map values of any shape."""
        return x * torch.sigmoid(QUICK * x)


class LayerScale(nn.Module):
    """A factor per channel (Touvron et al. 2021)."""

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(start)))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(…, dim)`` to the same shape."""
        return x * self.gamma


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and added to its input."""

    def __init__(self, tower: Mapping[str, Any]) -> None:
        super().__init__()
        width, scale = tower["width"], tower["layer_scale"]
        inner = int(width * tower["mlp_ratio"])
        gelu = QuickGelu() if tower["activation"] == "quick_gelu" else nn.GELU(approximate=tower["activation"])
        self.ln_1, self.ln_2 = (nn.LayerNorm(width, eps=tower["eps"]) for _ in range(2))
        self.attn = nn.MultiheadAttention(width, tower["heads"], batch_first=True)
        self.mlp = nn.Sequential(OrderedDict(c_fc=nn.Linear(width, inner), gelu=gelu, c_proj=nn.Linear(inner, width)))
        self.ls_1, self.ls_2 = (nn.Identity() if scale is None else LayerScale(width, scale) for _ in range(2))

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Map tokens ``(batch, tokens, width)``; ``hidden`` is true where a row's token must not see a column's.

        It is ``(tokens, tokens)``, or ``(batch * heads, tokens, tokens)``.
        """
        normed = self.ln_1(x)
        x = x + self.ls_1(self.attn(normed, normed, normed, need_weights=False, attn_mask=hidden)[0])
        found: Tensor = x + self.ls_2(self.mlp(self.ln_2(x)))
        return found


class AttentionalPooler(nn.Module):
    """Learned queries that attend to the tokens (CoCa, Yu et al. 2022)."""

    def __init__(self, tower: Mapping[str, Any]) -> None:
        super().__init__()
        width, dim = tower["width"], tower["embed"]
        self.query = nn.Parameter(torch.randn(tower["queries"], dim))
        self.attn = nn.MultiheadAttention(dim, tower["query_heads"], kdim=width, vdim=width, batch_first=True)
        # Norms of open_clip's pooler have torch's epsilon whatever the configuration says.
        self.ln_q, self.ln_k = nn.LayerNorm(dim), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(batch, tokens, width)`` to ``(batch, queries, dim)``."""
        x, queries = self.ln_k(x), self.ln_q(self.query).expand(len(x), -1, -1)
        found: Tensor = self.attn(queries, x, x, need_weights=False)[0]
        return found


def resized_places(places: Tensor, before: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Return position embeddings ``(1 + positions, width)``, resized for images of another size as open_clip resizes them.

    Args:
        places: Those of the class token, or of the mean, and of a grid in rows.
        before: Height and width of that grid.
        grid: Height and width of the wanted one.
    """
    if grid == before:
        return places
    first, others = places[:1], places[1:].reshape(1, *before, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(others, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([first, resized.flatten(2)[0].T])


class OwnImageTower(nn.Module):
    """A vision transformer with a class token, named as open_clip names it.

    Args:
        tower: As ``zoo_hf.open_clip_own.own_tower`` gives it.
        size: Height and width in pixels that the position embeddings are of.
        projection: Width of the space of images and texts; 0 for the features before the projection.
    """

    def __init__(self, tower: Mapping[str, Any], size: tuple[int, int], projection: int) -> None:
        super().__init__()
        width, patch = tower["width"], tower["patch_size"]
        self.grid, self.pool, self.norm_after_pool = (size[0] // patch, size[1] // patch), tower["pool"], tower["norm_after_pool"]
        dim = tower["embed"] if tower["queries"] else width
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(self.grid[0] * self.grid[1] + 1, width))
        self.ln_pre = nn.LayerNorm(width, eps=tower["eps"]) if tower["pre_norm"] else nn.Identity()
        blocks = nn.ModuleList(Block(tower) for _ in range(tower["layers"]))
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.attn_pool = AttentionalPooler(tower) if tower["queries"] else None
        self.ln_post = nn.LayerNorm(dim, eps=tower["eps"])
        self.proj = nn.Parameter(width**-0.5 * torch.randn(dim, projection)) if projection else None

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(batch, 3, height, width)`` to ``(batch, dim)``."""
        patches = self.conv1(x)
        tokens = torch.cat([self.class_embedding.expand(len(x), 1, -1), patches.flatten(2).transpose(1, 2)], 1)
        tokens = self.ln_pre(tokens + resized_places(self.positional_embedding, self.grid, (patches.shape[2], patches.shape[3])))
        for block in self.transformer["resblocks"].children():
            tokens = block(tokens)
        if self.attn_pool is not None:
            found = self._pooled(self.ln_post(self.attn_pool(tokens)))
        else:
            found = self.ln_post(self._pooled(tokens)) if self.norm_after_pool else self._pooled(self.ln_post(tokens))
        return found if self.proj is None else found @ self.proj

    def _pooled(self, x: Tensor) -> Tensor:
        return x[:, 1:].mean(1) if self.pool == "avg" else x[:, 0]


OWN_LAYERS: Mapping[str, Sequence[str]] = {
    "stem": ["class_embedding", "positional_embedding", "conv1", "ln_pre"],
    "block": ["transformer.resblocks.*", "attn_pool?", "ln_post", "proj?"],
}
