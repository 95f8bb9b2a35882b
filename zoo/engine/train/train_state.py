"""Parts of a checkpoint: position of the run, model values, optimizer state, random states."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.engine.distributed.ranks import Ranks
from zoo.engine.optim.optimizer_state import optimizer_tensors, restore_optimizer
from zoo.engine.runtime.device import random_state, restore_random_state
from zoo.engine.runtime.signals import StopFlag
from zoo.models.task_model import TaskModel
from zoo.tuning.shard import full_tensors, load_values
from zoo.util.atomic_write import write_json

log = logging.getLogger("zoo")

STOP = "stopped.json"


@dataclass
class TrainState:
    """Position and history of a run.

    Attributes:
        ranks: The processes that train together.
        loss_sum: Sum of the losses of the samples seen in the current epoch, a number, or float64 on a GPU.
        epoch: Position of the epoch in the run, from 0.
        step: Optimizer steps done in this epoch.
        steps: Optimizer steps done in all.
        seen: Samples seen in this epoch.
        seconds: Time spent in this epoch.
        history: One record per finished epoch.
        micro_batches: Micro-batches per batch; more than one after memory ran out.
        pass_divisor: ``Passes.divisor`` at the start of the phase.
        augments: False once augmentation was found not to suit the data.
    """

    ranks: Ranks
    loss_sum: Tensor | float = 0.0
    epoch: int = 0
    step: int = 0
    steps: int = 0
    seen: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    micro_batches: int = 1
    pass_divisor: int = 1
    augments: bool = True

    def next_epoch(self, position: int) -> None:
        """Move to the start of another epoch."""
        self.epoch, self.step, self.seen, self.seconds = position, 0, 0, 0.0
        self.loss_sum = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the run; the sum of the losses is that of all ranks."""
        total = self.ranks.fill(np.array([float(self.loss_sum)]))
        plain = {key: getattr(self, name) for name, key in _KEYS.items()}
        return plain | {"loss_sum": float(total[0]), "threads": torch.get_num_threads(), "augments": self.augments}

    def load_state_dict(self, saved: Mapping[str, Any], /) -> None:
        """Take over what ``state_dict`` returned, in place."""
        if saved["threads"] != torch.get_num_threads():
            log.warning(
                "the run used %d threads and goes on with %d: sums round otherwise, results may differ in the last digits",
                saved["threads"],
                torch.get_num_threads(),
            )
        for name, key in _KEYS.items():
            kind = type(getattr(self, name))
            if not isinstance(saved[key], (int, float) if kind is float else kind):
                raise TypeError(f"{key} is {saved[key]!r}")
            setattr(self, name, saved[key])
        self.loss_sum = float(saved["loss_sum"]) if self.ranks.main else 0.0
        self.augments = bool(saved.get("augments", True))  # earlier versions always augmented


# Names in a checkpoint by attribute; "split" and "passes" are those of zoo 0.1.0.
_KEYS = {name: name for name in ("epoch", "step", "steps", "seen", "seconds", "history")}
_KEYS |= {"micro_batches": "split", "pass_divisor": "passes"}


class Snapshot:
    """A copy of a model's values, on the CPU.

    Attributes:
        values: The values by name; empty before the first copy.
    """

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}
        self._phase: int | None = None

    def take(self, model: nn.Module, frozen: frozenset[str] = frozenset(), phase: int | None = None) -> None:
        """Copy the model's values; those in ``frozen`` only if the phase is not that of the last call."""
        if phase is None or phase != self._phase:
            frozen = frozenset()
        values = model.state_dict()
        moved = {name: tensor for name, tensor in values.items() if name not in frozen or name not in self.values}
        fresh = values_on_cpu(moved)
        self.values = {name: fresh[name] if name in fresh else self.values[name] for name in values}
        self._phase = phase

    def state_dict(self) -> dict[str, Tensor]:
        """Return the values."""
        return self.values

    def load_state_dict(self, saved: Mapping[str, Tensor], /) -> None:
        """Take over what ``state_dict`` returned."""
        self.values = dict(saved)


@dataclass(frozen=True)
class ModelValues:
    """The values of a model, which may be sharded over ranks."""

    model: nn.Module
    ranks: Ranks

    def state_dict(self) -> dict[str, Tensor]:
        """Return the full values, on the first rank."""
        return full_tensors(self.model.state_dict(), keep=self.ranks.main)

    def load_state_dict(self, saved: Mapping[str, Tensor], /) -> None:
        """Load full values, in place."""
        load_values(self.model, saved)


@dataclass(frozen=True)
class OptimizerState:
    """The state of an optimizer, which may be sharded over ranks."""

    optimizer: torch.optim.Optimizer
    ranks: Ranks

    def state_dict(self) -> dict[str, Tensor]:
        """Return the full state, on the first rank."""
        return full_tensors(optimizer_tensors(self.optimizer), keep=self.ranks.main)

    def load_state_dict(self, saved: Mapping[str, Tensor], /) -> None:
        """Load the full state, in place."""
        restore_optimizer(self.optimizer, saved)


@dataclass(frozen=True)
class RandomStates:
    """The global random states of every rank; to be loaded last, because building modules draws from them."""

    ranks: Ranks
    run: TrainState

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the first rank as tensors and plain data, those of the others as plain data."""
        tensors, plain = random_state()
        lists = {name: values.tolist() for name, values in tensors.items()} if self.ranks.count > 1 else {}
        return {**tensors, "generators": plain, "others": self.ranks.gather([lists, plain])[1:]}

    def load_state_dict(self, saved: Mapping[str, Any], /) -> None:
        """Restore the states of this rank."""
        ranks = self.ranks
        first = {name: value for name, value in saved.items() if isinstance(value, Tensor)}
        states = [(first, saved["generators"])]
        for lists, plain in saved["others"]:
            states.append(({name: torch.tensor(values, dtype=torch.uint8) for name, values in lists.items()}, plain))
        if len(states) != ranks.count and ranks.main:
            message = "the run used %d processes and goes on with %d: the samples are the same, random numbers such as dropout's are not"
            log.warning(message, len(states), ranks.count)
        if ranks.rank < len(states):
            restore_random_state(states[ranks.rank])
        else:  # a new rank must not draw the numbers of another
            torch.manual_seed(hash((self.run.steps, ranks.rank)) % 2**63)


def write_stop(folder: Path, stop: StopFlag, state: TrainState) -> None:
    """Write ``stopped.json`` for the program that started the run, because launchers change exit codes."""
    content = {"signal": stop.name, "exit_code": stop.exit_code, "epoch": state.epoch + 1, "step": state.step, "steps": state.steps}
    write_json(folder / STOP, content)


def frozen_names(model: TaskModel) -> frozenset[str]:
    """Return the names of all values of a model's frozen prefix."""
    groups = model.groups[: model.frozen]
    return frozenset(f"backbone.{name}" for group in groups for name, _ in (*group.named_parameters(), *group.named_buffers()))


def values_on_cpu(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return full copies of values, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in full_tensors(values).items()}


def values_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all values of a model, on the CPU."""
    return values_on_cpu(model.state_dict())
