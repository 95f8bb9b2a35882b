"""The learning rate that waits: what the schedule ``plateau`` remembers from epoch to epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Plateau:
    """A factor that falls where the monitored metric no longer improves.

    After ``patience`` epochs in a row without a better one the factor is multiplied by ``decay`` and the count starts anew.
    The defaults are shorter and milder than those of training from scratch (10 epochs and 0.1 in torch, Keras and timm): a
    fine-tuning has 20 epochs, and would be over before the first fall.

    Attributes:
        patience: Epochs without improvement that are waited for.
        decay: What the factor is multiplied by, in (0, 1).
        lowest: The factor never falls below this.
        factor: Factor on every learning rate of the phase.
        waited: Epochs since the last improvement or fall.
    """

    patience: int = 3
    decay: float = 0.3
    lowest: float = 1e-3
    factor: float = 1.0
    waited: int = 0

    def update(self, better: bool) -> None:
        """Take in whether the epoch that just ended is the best so far."""
        self.waited = 0 if better else self.waited + 1
        if self.waited >= self.patience:
            self.factor, self.waited = max(self.lowest, self.factor * self.decay), 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: what changes, not the settings."""
        return {"factor": self.factor, "waited": self.waited}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take over what ``to_dict`` gave, in place."""
        self.factor, self.waited = float(saved["factor"]), int(saved["waited"])
