"""torchxrayvision's networks without their classifiers: no sigmoid and no operating points, features only."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn


@contextmanager
def undisturbed() -> Iterator[None]:
    """Undo what an import leaves behind in the process: filters of warnings, folders on ``sys.path``, modules found only there.

    torchxrayvision silences all warnings, and its baseline models put two of their folders first on the path, from which a
    top-level module called ``model`` is imported.
    """
    path, modules = list(sys.path), set(sys.modules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            added = {Path(entry).resolve() for entry in sys.path if entry not in path}
            sys.path[:] = path
            new = set(sys.modules) - modules
            found = {name for name in new if "." not in name and added & _folders_of(sys.modules[name])}
            for name in new:
                if name.partition(".")[0] in found:
                    del sys.modules[name]


def _folders_of(module: ModuleType) -> set[Path]:
    file = getattr(module, "__file__", None)
    return set(Path(file).resolve().parents) if file else set()


with undisturbed():
    from torchxrayvision.models import DenseNet  # type: ignore[import-untyped]  # ships no types


class DenseNetFeatures(DenseNet):  # type: ignore[misc]  # torchxrayvision has no types
    """torchxrayvision's DenseNet whose forward is its ``features2``: the pooled features ``(batch, 1024)``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(num_classes=1, **options)
        del self.classifier

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, 1024)``."""
        features: Tensor = self.features2(x)
        return features


def densenet121(in_chans: int = 1, img_size: int | None = None, drop_rate: float = 0.0) -> nn.Module:
    """Build the DenseNet-121.

    Args:
        in_chans: Number of input channels.
        img_size: Size of the declared input; the network takes any of at least 29 pixels.
        drop_rate: Dropout after each dense layer, in [0, 1).
    """
    return DenseNetFeatures(in_channels=in_chans, drop_rate=drop_rate)


def resnet50(in_chans: int = 1, img_size: int | None = None) -> nn.Module:
    """Build the ResNet-50 as torchxrayvision does: torchvision's with a first layer of one channel; its class needs weights.

    Args:
        in_chans: Number of input channels.
        img_size: Size of the declared input; the network takes any.
    """
    from torchvision.models import resnet50 as build  # type: ignore[import-untyped]  # ships no types

    model: nn.Module = build(weights=None, num_classes=1)
    model.conv1 = nn.Conv2d(in_chans, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.fc = nn.Identity()
    return model
