"""The inside of one run: phases, epochs, steps."""

from __future__ import annotations

import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from zoo.data.open import Table
from zoo.data.table import flat_targets
from zoo.declare import Text
from zoo.engine.cache.phase_data import Streams, why_whole
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.distributed.sharding import check_batches
from zoo.engine.loading.batches import Batches
from zoo.engine.loading.stream import Stream
from zoo.engine.optim.lr_schedule import Plateau, Rates
from zoo.engine.optim.nonfinite import Guard
from zoo.engine.optim.optimizer import build_optimizer
from zoo.engine.optim.run_averages import Averages
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import Epoch, make_plan, next_phase
from zoo.engine.options.model_selection import Best, resolve_monitor
from zoo.engine.rundir.checkpoint import Checkpoint
from zoo.engine.rundir.run_folder import write_history
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.signals import StopFlag, Stopped
from zoo.engine.train.auto_tune import find_rate, fit_memory
from zoo.engine.train.checkpoint_writer import Saver, restore_state
from zoo.engine.train.finalize import conclude
from zoo.engine.train.loss import Loss, class_weights
from zoo.engine.train.messages import headline, interrupted
from zoo.engine.train.optimizer_step import Stepper
from zoo.engine.train.scale import TargetScale, encoded, measure, standard_units
from zoo.engine.train.train_epoch import take_steps
from zoo.engine.train.train_state import State, frozen_names, values_of, write_stop
from zoo.engine.train.validation import set_mode, validate
from zoo.models.task_model import TaskModel
from zoo.tuning import Regularizers


class Training:
    """One run: what it trains, on what, and how far it has come.

    Args:
        model: The model, on the accelerator's device.
        train: Training data.
        valid: Validation data, or None.
        config: The resolved configuration.
        accelerator: Device and precision.
        folder: The run's folder.
        stop: Polled after every step and every batch of an evaluation.
        layout: Memory format of the inputs.
        quiet: Show nothing.
        ranks: The processes that train together.
        penalties: Regularisers, or None.
    """

    def __init__(
        self,
        model: TaskModel,
        train: Table,
        valid: Table | None,
        config: Config,
        accelerator: Any,
        folder: Path,
        *,
        stop: StopFlag,
        layout: torch.memory_format,
        quiet: bool,
        ranks: Ranks,
        penalties: Regularizers | None = None,
    ) -> None:
        self.model, self.config, self.accelerator, self.folder, self.stop = model, config, accelerator, folder, stop
        self.ranks, self.penalties = ranks, penalties
        device = accelerator.device
        self.scale: TargetScale | None = measure(model.task, model.head, np.asarray(train.targets), model.num_classes)
        self.train = encoded(train, self.scale)
        self.truth: npt.NDArray[Any] | None = None if valid is None else np.asarray(valid.targets)
        weights = class_weights(config.class_weights, flat_targets(np.asarray(train.targets)), train.classes)
        self.loss = Loss(model.task, config.label_smoothing, None if weights is None else weights.to(device))
        # Cached features need a head that tells pooling and logits apart.
        separable = hasattr(model.head, "logits") and _is_plain(getattr(model.head, "pool", None))
        pixels = not isinstance(model.inputs, Text)
        self.batches = Batches(model, self.train, config, ranks)
        check_batches(self.batches.smallest, ranks)
        self.plan = make_plan(
            config, model.groups, steps=self.batches.steps, at_least=model.frozen, separable=separable, augmentable=pixels
        )
        self.optimizer = build_optimizer(model, config, device)
        self.averages = Averages(model, config, self.plan)
        self.state = State(Best(resolve_monitor(config.monitor, model.task)))
        self.rates = Rates(self.optimizer, config, self.state.rates, self.state.plateau)
        self.guard, self.stepper = self.make_stepper()
        self.progress = Progress(quiet or not ranks.main, self.state.best.monitor)
        self.streams = Streams(
            model,
            self.train,
            valid,
            config,
            accelerator,
            layout=layout,
            progress=self.progress,
            poll=self.poll,
            folder=folder,
            ranks=ranks,
            whole=why_whole(config, penalties),
        )
        self.saver = Saver(self)
        self._phase, self._began = -1, 0.0

    def run(self, saved: Checkpoint | None) -> None:
        """Train to the end of the plan, from ``saved`` where it is given, and load the kept epoch's values.

        Raises:
            TrainingError: If a loss or gradient is not finite, or no checkpoint can be written.
            InterruptedRunError: If a signal came.
        """
        with self.progress, standard_units(self.scale, self.model.head), closing(self.streams):
            if saved is not None:  # its head puts out standard units, so it comes after the model was brought to them
                restore_state(self, saved)
            elif self.ranks.rank:  # dropout must not be the same everywhere; the first process is as one alone would be
                torch.manual_seed(hash((self.config.seed, self.ranks.rank)) % 2**63)
            if saved is None and self.scale is not None:
                self.averages = Averages(self.model, self.config, self.plan)  # of the units that train
            self.optimizer.zero_grad(set_to_none=True)  # what the caller left on the model is no part of the first step
            samples = len(self.train), 0 if self.truth is None else len(self.truth)
            resumed_at = self._position if saved is not None else ""
            told = headline(self.model, self.config, samples, self.accelerator, self.folder, resumed_at, processes=self.ranks.count)
            self.progress.note(told)
            try:
                while self.state.epoch < len(self.plan):
                    self._epoch(self.plan[self.state.epoch])
                conclude(self)
            except Stopped:
                self.saver.save()
                heard = StopFlag()  # of whichever process; the flag of this one still waits for the signal that the launcher sends to all
                heard.signum = max(self.ranks.gather(self.stop.signum))
                if self.ranks.main:
                    write_stop(self.folder, heard, self.state)
                raise self.ranks.known(interrupted(heard, self.folder, self._position)) from None
            except Exception:
                self.saver.rescue()
                raise

    def _epoch(self, epoch: Epoch) -> None:
        state = self.state
        self._began = time.perf_counter() - state.seconds
        if self._phase != epoch.index:
            self._phase = epoch.index
            self.model.freeze(epoch.frozen)
            if self.config.compile:  # other parameters train: after eight variants of one function torch would give up compiling
                torch.compiler.reset()
            self.averages.settle(frozen_names(self.model))
        try:
            begins = epoch.done == state.step == 0
            if begins:
                state.passes = max(state.passes, state.split)
            self.streams.split = max(self.streams.split, state.passes)
            with self.ranks.together():
                stream = self.streams.train(epoch)
            if begins:  # and not later: a resumed run computes what is kept in batches of the same size
                state.passes = self.streams.split
            set_mode(self.model, epoch, training=True)
            with self.penalties.watching() if self.penalties else nullcontext():
                if begins:
                    began = time.perf_counter()
                    self._begin_phase(epoch, stream)
                    self._began += time.perf_counter() - began  # trials are no part of what an epoch takes
                take_steps(self, epoch, stream)
            trained = self.seconds
            with self.averages.applied():
                metrics = validate(self, epoch)
        except Stopped:
            state.seconds = self.seconds
            raise
        record = {
            "epoch": state.epoch + 1,
            "phase": epoch.phase.name,
            "lr": self.rates.head(epoch, epoch.steps - 1),
            "train_loss": self.ranks.total(float(state.loss_sum)) / max(1, state.seen),
            **metrics,
            "seconds": round(self.seconds, 3),
            "samples_per_second": round(state.seen / max(trained, 1e-9), 1),
        }
        self._close_epoch(epoch, record)

    def _begin_phase(self, epoch: Epoch, stream: Stream) -> None:
        self.state.plateau.restore(Plateau().to_dict())
        if self.config.wise_ft < 1 and epoch.index == self.plan[-1].index:
            self.state.start = values_of(self.model)
        if self.config.batch_size == "auto":
            self.state.split = fit_memory(self, epoch, stream)
        if self.rates.auto:
            self.state.rates[str(epoch.index)] = find_rate(self, epoch, stream)

    def _close_epoch(self, epoch: Epoch, record: dict[str, Any]) -> None:
        state = self.state
        self.stepper.intact = False  # between two epochs: neither the one nor the other
        state.history.append(record)
        better = self.truth is not None and state.best.update(record["epoch"], record)
        if better:
            with self.averages.applied():  # the checkpoint below and the mean want the values that train
                state.keep(self.model, self._phase)
        self.averages.end_epoch(state.epoch)
        tired = bool(self.config.patience) and self.truth is not None and state.best.waited >= self.config.patience
        following = next_phase(self.plan, state.epoch) if tired else state.epoch + 1
        ends = following >= len(self.plan) or self.plan[following].index != epoch.index
        if ends:
            state.best.waited = 0
        if self.rates.schedule(epoch) == "plateau":
            state.plateau.update(better)
        state.next_epoch(following)
        if ends or self.saver.due:
            self.saver.save()
        if self.ranks.main:
            write_history(self.folder, state.history)
        self.progress.epoch(record, len(self.plan), better)
        self.stepper.intact = True

    def make_stepper(self) -> tuple[Guard, Stepper]:
        """Return what takes optimizer steps, and what watches them."""
        device = self.accelerator.device
        guard = Guard(self.optimizer, self.model.parameters(), device, self.config.clip_grad)
        penalty = self.penalties.penalty if self.penalties else None
        return guard, Stepper(self.model, self.loss, self.optimizer, guard, self.ranks, device, penalty=penalty)

    @property
    def seconds(self) -> float:
        """Seconds of the present epoch so far, those before an interruption included."""
        return time.perf_counter() - self._began

    def poll(self) -> None:
        """Raise ``Stopped`` if a signal came."""
        self.stop.poll()

    @property
    def _position(self) -> str:
        if self.state.epoch == len(self.plan):
            return "the end of the last epoch, with nothing left to train"
        return f"epoch {self.state.epoch + 1}, after {self.state.step} of {self.plan[self.state.epoch].steps} steps"


def _is_plain(pool: object) -> bool:
    """Tell whether pooled features can be kept: those of a module that learns nothing by itself."""
    return isinstance(pool, nn.Module) and not any(True for _ in pool.parameters())
