"""Everything that a run must remember to go on exactly where it stopped."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.best import Best
from zoo.engine.checkpoint import Checkpoint
from zoo.engine.device import random_state, restore_random_state
from zoo.engine.optimizer import optimizer_tensors, restore_optimizer

log = logging.getLogger("zoo")


@dataclass
class State:
    """The position of a run and what it has collected.

    Attributes:
        best: The best epoch so far.
        loss_sum: Sum of the losses of the samples seen in the current epoch, a number, or float64 on a GPU.
        epoch: Position in the plan, from 0.
        step: Optimizer steps done in this epoch.
        steps: Optimizer steps done in all.
        seen: Samples seen in this epoch.
        seconds: Time spent in this epoch.
        history: One record per finished epoch.
        kept: Values of the model after its best epoch, on the CPU; empty while there is none.
    """

    best: Best
    loss_sum: Tensor | float = 0.0
    epoch: int = 0
    step: int = 0
    steps: int = 0
    seen: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)

    def keep(self, model: nn.Module) -> None:
        """Remember the model as it is now."""
        self.kept = {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}

    def next_epoch(self, position: int) -> None:
        """Go to the start of another epoch of the plan."""
        self.epoch, self.step, self.seen, self.seconds = position, 0, 0, 0.0
        self.loss_sum = 0.0

    def checkpoint(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint:
        """Return all of it, the model, the optimizer and the random state included."""
        rng_tensors, rng_plain = random_state()
        plain = {name: getattr(self, name) for name in ("epoch", "step", "steps", "seen", "seconds", "history")}
        plain |= {"best": self.best.to_dict(), "loss_sum": float(self.loss_sum), "rng": rng_plain, "threads": torch.get_num_threads()}
        tensors = {"model": model.state_dict(), "optimizer": optimizer_tensors(optimizer), "rng": rng_tensors, "kept": self.kept}
        return Checkpoint(tensors, plain)

    def restore(self, saved: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Take over what ``checkpoint`` gave, in place; the random state last, because building things draws from it."""
        if saved.plain["threads"] != torch.get_num_threads():
            log.warning(
                "the run used %d threads and goes on with %d: sums round otherwise, results may differ in the last digits",
                saved.plain["threads"],
                torch.get_num_threads(),
            )
        model.load_state_dict(saved.tensors["model"])
        restore_optimizer(optimizer, saved.tensors["optimizer"])
        for name in ("epoch", "step", "steps", "seen", "seconds", "history"):
            setattr(self, name, saved.plain[name])
        self.best.restore(saved.plain["best"])
        self.kept = dict(saved.tensors["kept"])
        self.loss_sum = float(saved.plain["loss_sum"])
        restore_random_state((dict(saved.tensors["rng"]), saved.plain["rng"]))
