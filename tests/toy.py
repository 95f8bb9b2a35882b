"""Three-layer backbones for tests: small enough to reason about, odd enough to catch mistakes."""

from __future__ import annotations

import torch
from torch import nn

import zoo
from zoo.declare import BackboneSpec, Features, Image

TOY_LAYERS = {"stem": ["conv1", "bn1"], "stage": "blocks.*"}


class ToyBlock(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(torch.relu(self.bn(self.conv(x))))


class ToyNet(nn.Module):
    """Convolution, BatchNorm and dropout: all that drifts when it is not really frozen."""

    def __init__(self, width: int = 8, depth: int = 2, in_chans: int = 3, drop_rate: float = 0.2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, padding=1, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList(ToyBlock(width, drop_rate) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        for block in self.blocks:
            x = block(x)
        return x


def toynet(width: int = 8, depth: int = 2, in_chans: int = 3, drop_rate: float = 0.2) -> ToyNet:
    return ToyNet(width, depth, in_chans, drop_rate)


def toy_spec(name: str = "toy/net", **changes: object) -> BackboneSpec:
    fields = {
        "name": name,
        "build": "tests.toy:toynet",
        "layers": TOY_LAYERS,
        "inputs": Image(size=16),
        "features": Features(dim=8, layout="BCHW"),
    }
    return BackboneSpec(**(fields | changes))  # type: ignore[arg-type]


class ToyPlugin:
    """A plugin as an object: one backbone, listed."""

    @zoo.hookimpl
    def zoo_backbones(self) -> list[BackboneSpec]:
        return [toy_spec()]
