"""Calls around each optimizer step, for kinds of updates that have a schedule of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from zoo.tuning.efficient.kinds import KINDS, Updated


class StepHook(Protocol):
    """What a kind of update does around each optimizer step; its state is part of a run's checkpoint."""

    def before_step(self) -> None:
        """Change gradients, in place."""

    def after_step(self) -> None:
        """Change values, in place; the gradients are still there."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state: tensors and plain data."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any:
        """Take over what ``state_dict`` returned, in place; an empty mapping is the state at the start."""


def step_hooks(model: Updated, steps: int) -> dict[str, StepHook]:
    """Return what the update of a model needs around optimizer steps, by a name for checkpoints; mostly nothing.

    Args:
        model: The model.
        steps: Optimizer steps of the whole run in which the update trains.
    """
    kind = None if model.lora is None else KINDS[model.lora.kind]
    if model.lora is None or kind is None or kind.budget is None or model.trains != model.lora.kind:
        return {}
    return {"rank-budget": kind.budget(model.backbone, model.lora.rank, steps)}


def call_around_steps(optimizer: torch.optim.Optimizer, hook: StepHook) -> None:
    """Call a hook before and after each step of an optimizer."""
    optimizer.register_step_pre_hook(lambda *_: hook.before_step())
    optimizer.register_step_post_hook(lambda *_: hook.after_step())
