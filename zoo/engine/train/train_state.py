"""Everything that a run must remember to go on exactly where it stopped."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.engine.distributed.ranks import Ranks
from zoo.engine.optim.lr_schedule import Plateau
from zoo.engine.optim.optimizer import optimizer_tensors, restore_optimizer
from zoo.engine.options.model_selection import Best
from zoo.engine.rundir.checkpoint import Checkpoint
from zoo.engine.runtime.device import random_state, restore_random_state
from zoo.engine.runtime.signals import StopFlag
from zoo.errors import SavedModelError, ZooError
from zoo.models.task_model import TaskModel
from zoo.tuning.shard import load_values, whole
from zoo.util.atomic_write import write_json

log = logging.getLogger("zoo")

PLAIN = ("epoch", "step", "steps", "seen", "seconds", "history", "rates", "split", "passes")


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
        start: Values of the model before the last phase, where the result is to be mixed with them.
        rates: Learning rate of the head that a range test found for each phase, by its position.
        split: Micro-batches per batch; more than one after memory ran out.
        passes: By how much memory cuts the batches of passes without gradients, as it was when the phase began.
        plateau: What the schedule of that name remembers of the present phase.
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
    start: dict[str, Tensor] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    split: int = 1
    passes: int = 1
    plateau: Plateau = field(default_factory=Plateau)
    _kept_in: int | None = None

    def keep(self, model: TaskModel, phase: int | None = None) -> None:
        """Remember the model as it is now; of a phase that was kept before, only what is not frozen is copied again."""
        still = frozen_names(model) if phase is not None and phase == self._kept_in else frozenset()
        values = model.state_dict()
        moved = {name: tensor for name, tensor in values.items() if name not in still or name not in self.kept}
        fresh = {name: tensor.detach().to("cpu", copy=True) for name, tensor in whole(moved).items()}
        self.kept = {name: fresh[name] if name in fresh else self.kept[name] for name in values}
        self._kept_in = phase

    def next_epoch(self, position: int) -> None:
        """Go to the start of another epoch of the plan."""
        self.epoch, self.step, self.seen, self.seconds = position, 0, 0, 0.0
        self.loss_sum = 0.0

    def checkpoint(self, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks) -> Checkpoint:
        """Return all of it, the model, the optimizer and the random states of every process included."""
        rng_tensors, rng_plain = random_state()
        lists = {name: values.tolist() for name, values in rng_tensors.items()} if ranks.count > 1 else {}
        others = ranks.gather([lists, rng_plain])[1:]
        total = ranks.fill(np.array([float(self.loss_sum)]))
        plain = {name: getattr(self, name) for name in PLAIN}
        plain |= {"best": self.best.to_dict(), "plateau": self.plateau.to_dict(), "loss_sum": float(total[0])}
        plain |= {"rng": rng_plain, "others": others, "threads": torch.get_num_threads()}
        own = {"model": whole(model.state_dict(), keep=ranks.main), "optimizer": whole(optimizer_tensors(optimizer), keep=ranks.main)}
        tensors = {**own, "rng": rng_tensors, "kept": self.kept}
        return Checkpoint(tensors | ({"start": self.start} if self.start else {}), plain)

    def restore(self, saved: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
        """Take over what ``checkpoint`` gave, in place; the random state last, because building things draws from it.

        Raises:
            SavedModelError: If it holds something else, as one of another run or edited by hand does.
        """
        try:
            self._restore(saved, model, optimizer, ranks)
        except (torch.OutOfMemoryError, ZooError):
            raise
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            cause = " ".join(map(str.strip, f"{type(error).__name__}: {error}".splitlines()[:2]))
            raise SavedModelError(
                f"the checkpoint does not belong to this run ({cause}); start anew in another folder (out, --out)"
            ) from error

    def _restore(self, saved: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
        if saved.plain["threads"] != torch.get_num_threads():
            log.warning(
                "the run used %d threads and goes on with %d: sums round otherwise, results may differ in the last digits",
                saved.plain["threads"],
                torch.get_num_threads(),
            )
        load_values(model, saved.tensors["model"])
        restore_optimizer(optimizer, saved.tensors["optimizer"])
        for name in PLAIN:
            kind = type(getattr(self, name))
            if not isinstance(saved.plain[name], (int, float) if kind is float else kind):
                raise TypeError(f"{name} is {saved.plain[name]!r}")
            if name == "rates":  # what sets the learning rates reads this very mapping
                self.rates.clear()
                self.rates.update(saved.plain[name])
                continue
            setattr(self, name, saved.plain[name])
        self.best.restore(saved.plain["best"])
        self.plateau.restore(saved.plain["plateau"])
        self.kept, self.start = dict(saved.tensors["kept"]), dict(saved.tensors.get("start", {}))
        self.loss_sum = float(saved.plain["loss_sum"]) if ranks.main else 0.0
        self._restore_random(saved, ranks)

    def _restore_random(self, saved: Checkpoint, ranks: Ranks) -> None:
        states = [(dict(saved.tensors["rng"]), saved.plain["rng"])]
        for lists, plain in saved.plain["others"]:
            states.append(({name: torch.tensor(values, dtype=torch.uint8) for name, values in lists.items()}, plain))
        if len(states) != ranks.count and ranks.main:
            told = "the run used %d processes and goes on with %d: the samples are the same, random numbers such as dropout's are not"
            log.warning(told, len(states), ranks.count)
        if ranks.rank < len(states):
            restore_random_state(states[ranks.rank])
        else:  # a process that was not there before must not draw what another does
            torch.manual_seed(hash((self.steps, ranks.rank)) % 2**63)


STOP = "stopped.json"


def write_stop(folder: Path, stop: StopFlag, state: State) -> None:
    """Leave a mark for whoever started a run that a signal stopped: launchers change exit codes."""
    told = {"signal": stop.name, "exit_code": stop.exit_code, "epoch": state.epoch + 1, "step": state.step, "steps": state.steps}
    write_json(folder / STOP, told)


def frozen_names(model: TaskModel) -> frozenset[str]:
    """Return the names in the model of all values of its frozen prefix."""
    groups = model.groups[: model.frozen]
    return frozenset(f"backbone.{name}" for group in groups for name, _ in (*group.named_parameters(), *group.named_buffers()))


def values_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all values of a model, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in whole(model.state_dict()).items()}
