"""Layers that fuse the features of parts: beside each other, by gates, or by cross-attention, with learned vectors of missing parts."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.transfer.fusion.solved import Block, standardized
from zoo.transfer.fusion.towers import Towers

WAYS = ("concatenate", "gated", "cross_attention")
WIDTH, HEADS, LAYERS = 64, 4, 2  # of the fused features, and of cross-attention


def with_dropped_parts(missing: Tensor, share: float) -> Tensor:
    """Return flags with one more missing part in a share of the rows that have two parts or more (modality dropout).

    Args:
        missing: ``(batch, parts)`` of bool.
        share: In [0, 1].
    """
    there = ~missing
    drawn = torch.rand(missing.shape, device=missing.device).masked_fill(missing, -1.0).argmax(1)
    chosen = (torch.rand(len(missing), device=missing.device) < share) & (there.sum(1) > 1)
    return missing | (functional.one_hot(drawn, missing.shape[1]).bool() & chosen[:, None])


class Mixer(nn.Module):
    """Reads the output of ``Towers``, drops parts in training, and standardizes features and numbers.

    Args:
        towers: What gives the features.
        blocks: How parts are standardized, by their names.
        dropout: Share of the rows of a training batch without one of their parts, in [0, 1].

    Attributes:
        dim: Width of the fused features.
    """

    dim: int

    def __init__(self, towers: Towers, blocks: Mapping[str, Block], dropout: float) -> None:
        super().__init__()
        self.sizes, self.dropout = towers.sizes, dropout
        self.tokens, self.dims = dict(towers.tokens), dict(towers.dims)
        self._limits = [block.limit for block in blocks.values()]
        for place, block in enumerate(blocks.values()):
            self.register_buffer(f"mean{place}", block.mean.clone())
            self.register_buffer(f"scale{place}", block.scale.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map the output of the towers to fused features ``(batch, dim)``."""
        flags, numbers, mask, *features = torch.split(x, self.sizes, 1)
        missing = flags > 0.5
        if self.training and self.dropout:
            missing = with_dropped_parts(missing, self.dropout)
        vectors = {name: part.reshape(len(x), -1, self.dims[name]) for name, part in zip(self.dims, features, strict=True)}
        return self.fused(vectors, numbers, missing, mask > 0.5)

    def fused(self, vectors: Mapping[str, Tensor], numbers: Tensor, missing: Tensor, mask: Tensor) -> Tensor:
        """Return fused features.

        Args:
            vectors: Features of each backbone, ``(batch, vectors, dim)``.
            numbers: ``(batch, numbers)``.
            missing: ``(batch, parts)`` of bool.
            mask: Which tokens of the text are no padding, ``(batch, tokens)``; of no columns where it has one vector.
        """
        raise TypeError(f"{type(self).__name__} has no fused()")

    def standard(self, place: int, values: Tensor) -> Tensor:
        """Return values ``(batch, dim)`` of a part as its block has them."""
        return standardized(values, getattr(self, f"mean{place}"), getattr(self, f"scale{place}"), self._limits[place])

    def standard_numbers(self, numbers: Tensor) -> Tensor:
        """Return standardized numbers ``(batch, numbers)``."""
        first = len(self.dims)
        return torch.cat([self.standard(first + place, column) for place, column in enumerate(torch.split(numbers, 1, 1))], 1)


class Concatenated(Mixer):
    """All parts beside each other, and a column per part that is 1 where it is missing: as the solved head takes them."""

    def __init__(self, towers: Towers, blocks: Mapping[str, Block], dropout: float) -> None:
        super().__init__(towers, blocks, dropout)
        self.dim = sum(self.dims.values()) + 2 * towers.packing.numbers + len(self.dims)

    def fused(self, vectors: Mapping[str, Tensor], numbers: Tensor, missing: Tensor, mask: Tensor) -> Tensor:
        """Return ``(batch, dim)``."""
        rows = [self.standard(place, part[:, 0]) for place, part in enumerate(vectors.values())]
        rows += [self.standard_numbers(numbers)] if numbers.shape[1] else []
        widths = [*self.dims.values(), *([1] * numbers.shape[1])]
        gone = torch.cat([missing[:, [place]].expand(-1, width) for place, width in enumerate(widths)], 1)
        return torch.cat([torch.cat(rows, 1).masked_fill(gone, 0.0), missing.float()], 1)


class Gated(Mixer):
    """Gated multimodal units (GMU, Arevalo et al. 2017): ``sum_i sigmoid(Z_i [x_1 … x_k]) * tanh(W_i x_i)``.

    The numbers together are one part. A learned vector stands for the features of a missing part.
    """

    def __init__(self, towers: Towers, blocks: Mapping[str, Block], dropout: float, width: int = WIDTH) -> None:
        super().__init__(towers, blocks, dropout)
        sizes = [*self.dims.values(), *([towers.packing.numbers] if towers.packing.numbers else [])]
        self.dim = width
        self.missing = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in sizes)
        self.values = nn.ModuleList(nn.Linear(size, width) for size in sizes)
        self.gates = nn.Linear(sum(sizes), width * len(sizes))

    def fused(self, vectors: Mapping[str, Tensor], numbers: Tensor, missing: Tensor, mask: Tensor) -> Tensor:
        """Return ``(batch, dim)``."""
        # A block makes the summed variance 1; here that of each value is.
        parts = [self.standard(place, part[:, 0]) * math.sqrt(part.shape[2]) for place, part in enumerate(vectors.values())]
        gone = [missing[:, [place]] for place in range(len(parts))]
        if numbers.shape[1]:
            parts.append(self.standard_numbers(numbers))
            gone.append(missing[:, len(gone) :])
        parts = [torch.where(absent, learned, part) for absent, learned, part in zip(gone, self.missing, parts, strict=True)]
        gates = torch.sigmoid(self.gates(torch.cat(parts, 1))).chunk(len(parts), 1)
        found: Tensor = sum(gate * torch.tanh(value(part)) for gate, value, part in zip(gates, self.values, parts, strict=True))  # type: ignore[assignment]  # not 0
        return found


class CrossBlock(nn.Module):
    """One layer in which the tokens of each part attend to those of all others (co-attention, Lu et al. 2019), then an MLP."""

    def __init__(self, parts: int, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(parts))
        self.attentions = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(parts))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(parts)
        )

    def forward(self, parts: list[Tensor], padding: list[Tensor]) -> list[Tensor]:
        """Map tokens ``(batch, tokens, width)`` of each part to new ones; ``padding`` ``(batch, tokens)`` is true where there is none."""
        normal = [norm(part) for norm, part in zip(self.norms, parts, strict=True)]
        found = []
        for place, (attention, mlp) in enumerate(zip(self.attentions, self.mlps, strict=True)):
            others = [other for other in range(len(parts)) if other != place]
            keys, hidden = torch.cat([normal[other] for other in others], 1), torch.cat([padding[other] for other in others], 1)
            tokens = parts[place] + attention(normal[place], keys, keys, key_padding_mask=hidden, need_weights=False)[0]
            found.append(tokens + mlp(tokens))
        return found


class CrossAttention(Mixer):
    """Tokens of each part attend to those of the others; the fused features are the means of each part's tokens beside each other.

    A backbone that gives one vector has one token, and each number has one (Gorishniy et al. 2021). A learned token stands for all of a
    missing part.
    """

    def __init__(
        self,
        towers: Towers,
        blocks: Mapping[str, Block],
        dropout: float,
        width: int = WIDTH,
        heads: int = HEADS,
        layers: int = LAYERS,
    ) -> None:
        super().__init__(towers, blocks, dropout)
        count = towers.packing.numbers
        parts = len(self.dims) + bool(count)
        self.dim = width * parts
        self.projections = nn.ModuleDict({name: nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width)) for name, dim in self.dims.items()})
        self.places = nn.ParameterDict({name: nn.Parameter(0.02 * torch.randn(self.tokens[name], width)) for name in self.dims})
        self.missing = nn.ParameterDict({name: nn.Parameter(0.02 * torch.randn(width)) for name in self.dims})
        if count:
            self.number_weight, self.number_bias = (nn.Parameter(torch.randn(count, width) / math.sqrt(width)) for _ in range(2))
            self.number_missing = nn.Parameter(0.02 * torch.randn(count, width))
        self.blocks = nn.ModuleList(CrossBlock(parts, width, heads) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(parts))

    def fused(self, vectors: Mapping[str, Tensor], numbers: Tensor, missing: Tensor, mask: Tensor) -> Tensor:
        """Return ``(batch, dim)``."""
        parts, padding = [], []
        for place, (name, values) in enumerate(vectors.items()):
            tokens, absent = self.projections[name](values) + self.places[name], missing[:, place, None]
            parts.append(torch.where(absent[..., None], self.missing[name], tokens))
            hidden = ~mask if name == "text" and mask.shape[1] else torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
            padding.append(hidden & ~absent)
        if numbers.shape[1]:
            tokens = self.standard_numbers(numbers)[..., None] * self.number_weight + self.number_bias
            parts.append(torch.where(missing[:, len(vectors) :, None], self.number_missing, tokens))
            padding.append(torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device))
        for block in self.blocks:
            parts = block(parts, padding)
        shown = [~hidden[..., None] for hidden in padding]
        means = [norm((part * seen).sum(1) / seen.sum(1)) for norm, part, seen in zip(self.norms, parts, shown, strict=True)]
        return torch.cat(means, 1)


MIXERS = {"concatenate": Concatenated, "gated": Gated, "cross_attention": CrossAttention}
