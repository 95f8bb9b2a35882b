"""The ResNet of CLIP (Radford et al. 2021, section 2.4) as open_clip has it, with its names: RN50, RN101, RN50x4, RN50x16, RN50x64.

It differs from ResNet-D (He et al. 2019) in that every stride is an average pooling before a convolution, and in its pooling, which
is attention of the mean of the last map to its positions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo_hf.open_clip_vit import resized_places

EXPANSION = 4  # of the channels in a block
REDUCTION = 32  # pixels per position of the last map


class Bottleneck(nn.Module):
    """Three convolutions added to their input, which is pooled and projected where the sizes differ."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = width * EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3, self.bn3 = nn.Conv2d(width, after, 1, bias=False), nn.BatchNorm2d(after)
        parts = {"-1": nn.AvgPool2d(stride), "0": nn.Conv2d(before, after, 1, bias=False), "1": nn.BatchNorm2d(after)}
        self.downsample = nn.Sequential(OrderedDict(parts)) if stride > 1 or before != after else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, before, height, width)`` to ``(batch, 4 * width, height / stride, width / stride)``."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        inner = self.avgpool(functional.relu(self.bn2(self.conv2(inner))))
        added: Tensor = self.bn3(self.conv3(inner)) + (x if self.downsample is None else self.downsample(x))
        return functional.relu(added)


class AttentionPool(nn.Module):
    """Attention of the mean of all positions to them and to itself.

    Args:
        grid: Height and width of the map that the position embeddings are of.
        width: Channels of the map.
        heads: Number of heads.
        projection: Width of the space of images and texts; 0 for the attended values before the projection.
    """

    def __init__(self, grid: tuple[int, int], width: int, heads: int, projection: int) -> None:
        super().__init__()
        self.grid, self.heads = grid, heads
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(grid[0] * grid[1] + 1, width))
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, projection) if projection else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, width, height, width of the map)`` to ``(batch, dim)``; places are resized for a map of another size."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        tokens = tokens + resized_places(self.positional_embedding, self.grid, (x.shape[2], x.shape[3]))
        query, key, value = (
            projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projected in (self.q_proj(tokens[:, :1]), self.k_proj(tokens), self.v_proj(tokens))
        )
        found = functional.scaled_dot_product_attention(query, key, value).flatten(1)
        return found if self.c_proj is None else self.c_proj(found)


class OwnResNet(nn.Module):
    """A ResNet with three convolutions at its start and attention at its end, named as open_clip names it.

    Args:
        tower: As ``zoo_hf.open_clip_own.own_resnet`` gives it.
        size: Height and width in pixels that the position embeddings are of.
        projection: Width of the space of images and texts; 0 for the features before the projection.
    """

    def __init__(self, tower: Mapping[str, Any], size: tuple[int, int], projection: int) -> None:
        super().__init__()
        width = tower["width"]
        self.conv1, self.bn1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv2, self.bn2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv3, self.bn3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        before = width
        for stage, blocks in enumerate(tower["stages"]):
            inner = width * 2**stage
            strides = [1 if stage == 0 else 2, *[1] * (blocks - 1)]
            widths = [before, *[inner * EXPANSION] * (blocks - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*(Bottleneck(a, inner, b) for a, b in zip(widths, strides, strict=True))))
            before = inner * EXPANSION
        grid = (size[0] // REDUCTION, size[1] // REDUCTION)
        self.attnpool = AttentionPool(grid, before, tower["heads"], projection)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(batch, 3, height, width)`` to ``(batch, dim)``."""
        for number in (1, 2, 3):
            x = functional.relu(getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x)))
        x = functional.avg_pool2d(x, 2)
        for number in (1, 2, 3, 4):
            x = getattr(self, f"layer{number}")(x)
        found: Tensor = self.attnpool(x)
        return found


RESNET_LAYERS: Mapping[str, Sequence[str]] = {
    "stem": ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3"],
    "layer1": ["layer1"],
    "layer2": ["layer2"],
    "layer3": ["layer3"],
    "layer4": ["layer4", "attnpool"],
}
