"""GlyphNet: a small residual CNN for pictures of single characters, 32 pixels a side.

The layout is that of a CIFAR-style ResNet (He et al. 2015) with one block per stage. The stem halves the picture, as
its inputs are characters scanned at 8 to 32 pixels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm around a shortcut, which is projected where the shape changes."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_width != width:
            self.shortcut = nn.Sequential(nn.Conv2d(in_width, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_width, height, width)`` to ``(batch, width, height / stride, width / stride)``."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class GlyphNet(nn.Module):
    """A stem and three residual stages, each at half the resolution of the one before (stage1 keeps the stem's).

    Args:
        in_chans: Channels of the input.
        widths: Channels of stage1, stage2 and stage3; the last is the feature dimension. The stem has those of stage1.
    """

    def __init__(self, in_chans: int = 1, widths: tuple[int, int, int] = (32, 64, 160)) -> None:
        super().__init__()
        first, second, third = widths
        self.conv = nn.Conv2d(in_chans, first, 5, stride=2, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(first)
        self.stage1 = ResidualBlock(first, first, stride=1)
        self.stage2 = ResidualBlock(first, second, stride=2)
        self.stage3 = ResidualBlock(second, third, stride=2)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures ``(batch, in_chans, 32, 32)`` to features ``(batch, 160, 4, 4)``; other sizes scale alike."""
        x = functional.relu(self.norm(self.conv(x)))
        features: Tensor = self.stage3(self.stage2(self.stage1(x)))
        return features


def _initialise(module: nn.Module) -> None:
    """Draw convolution weights for ReLU networks (He et al. 2015), in place."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def glyphnet(in_chans: int = 1) -> GlyphNet:
    """Build GlyphNet without a head, randomly initialised."""
    return GlyphNet(in_chans)
