"""Standardization of regression targets during training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zoo.data.table import Part, Table


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of the training targets, per output.

    A loss in standard units makes the learning rate independent of the unit of the target. ``unfold`` rewrites the last
    linear layer so that the model outputs standard units, ``fold`` reverts it, so a saved model needs no scale.
    """

    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]

    @classmethod
    def of(cls, targets: npt.NDArray[Any], outputs: int, parts: Sequence[Part] = ()) -> TargetScale:
        """Measure the training targets ``(n,)`` or ``(n, outputs)``; a constant target has deviation 1, and a class is left as it is.

        Args:
            targets: The targets.
            outputs: Their number per sample.
            parts: Those of each of several tasks, of which labels may be missing.
        """
        table = np.asarray(targets, dtype=np.float64).reshape(len(targets), outputs)
        if parts:
            mean, std = np.zeros(outputs), np.ones(outputs)
            for part in parts:
                if part.kind == "number":
                    own = table[part.known(table), part.start : part.stop]
                    mean[part.start : part.stop], std[part.start : part.stop] = own.mean(0), own.std(0)
            return cls(mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32))
        std = table.std(0)
        return cls(table.mean(0).astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32))

    def encode(self, targets: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return targets in standard units, ``(n, outputs)``."""
        return (np.asarray(targets, dtype=np.float32).reshape(len(targets), -1) - self.mean) / self.std

    def decode(self, outputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return outputs ``(n, outputs)`` in the targets' own unit."""
        return (outputs * self.std + self.mean).astype(np.float32)

    def unfold(self, head: nn.Module) -> None:
        """Make the head output standard units, in place; an untrained head starts at the mean."""
        layer = _last_linear(head)
        mean, std = self._on(layer)
        with torch.no_grad():
            if layer.bias.any():
                layer.weight.div_(std[:, None])
                layer.bias.sub_(mean).div_(std)

    def fold(self, head: nn.Module) -> None:
        """Make the head output the targets' own unit again, in place."""
        layer = _last_linear(head)
        mean, std = self._on(layer)
        with torch.no_grad():
            layer.weight.mul_(std[:, None])
            layer.bias.mul_(std).add_(mean)

    def _on(self, layer: nn.Linear) -> tuple[Tensor, Tensor]:
        device = layer.weight.device
        return torch.from_numpy(self.mean).to(device), torch.from_numpy(self.std).to(device)


def measure(head: nn.Module, table: Table, outputs: int) -> TargetScale | None:
    """Return the scale of the targets of a table; None if the head does not end in a linear layer."""
    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    scalable = bool(layers) and layers[-1].out_features == outputs and layers[-1].bias is not None
    return TargetScale.of(np.asarray(table.targets), outputs, table.parts) if scalable else None


def encoded(table: Table, scale: TargetScale | None) -> Table:
    """Return a table with targets in standard units; the table itself without a scale."""
    return table if scale is None else replace(table, targets=scale.encode(np.asarray(table.targets)))


@contextmanager
def standard_units(scale: TargetScale | None, head: nn.Module) -> Iterator[None]:
    """Make a head output standard units while the context is open, in place; no effect without a scale."""
    if scale is None:
        yield
        return
    scale.unfold(head)
    try:
        yield
    finally:
        scale.fold(head)


def _last_linear(head: nn.Module) -> nn.Linear:
    return [module for module in head.modules() if isinstance(module, nn.Linear)][-1]
