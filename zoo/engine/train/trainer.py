"""The inside of one run: phases and epochs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import torch
from torch import nn

from zoo.declare import Text
from zoo.engine.cache.phase_data import PhaseData
from zoo.engine.distributed.sharding import check_batches
from zoo.engine.loading.batches import StepBatches
from zoo.engine.loading.order import Indices
from zoo.engine.loading.stream import Stream
from zoo.engine.optim.lr_schedule import Plateau, Rates
from zoo.engine.optim.nonfinite import Guard, NonFiniteError
from zoo.engine.optim.optimizer import build_optimizer
from zoo.engine.optim.run_averages import Averages
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import Epoch, make_plan, next_phase
from zoo.engine.options.model_selection import Best
from zoo.engine.rundir.checkpoint import Checkpoint
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.rundir.run_folder import write_history
from zoo.engine.rundir.stateful import Stateful, distribute
from zoo.engine.rundir.trackers import close_trackers, log_record, open_trackers
from zoo.engine.runtime.device import random_state, restore_random_state
from zoo.engine.runtime.signals import StopFlag, Stopped
from zoo.engine.train.auto_tune import AutoTune
from zoo.engine.train.checkpoint_writer import CheckpointWriter
from zoo.engine.train.finalize import Finalizer
from zoo.engine.train.messages import headline, interrupted, not_finite
from zoo.engine.train.objective import Identity, Objective
from zoo.engine.train.optimizer_step import Stepper
from zoo.engine.train.train_epoch import EpochRunner
from zoo.engine.train.train_state import (
    ModelValues,
    OptimizerState,
    RandomStates,
    Snapshot,
    TrainState,
    frozen_names,
    write_stop,
)
from zoo.errors import OptionError


class Training:
    """One run: what it minimises, how far it has come, and everything that has state.

    To be built while the objective is active.

    Args:
        objective: What is minimised; its modules are on the device.
        context: The conditions of the run.
    """

    def __init__(self, objective: Objective, context: RunContext) -> None:
        config, model, ranks = context.config, objective.model, context.ranks
        self.objective, self.context, self.model = objective, context, model
        # Cached features need a head that tells pooling and logits apart.
        separable = objective.pooled and hasattr(model.head, "logits") and _is_plain(getattr(model.head, "pool", None))
        self.batches = StepBatches(objective.sources, config, ranks, objective.soften)
        check_batches(self.batches.smallest, ranks, separable=objective.separable)
        pixels = not isinstance(model.inputs, Text)
        self.plan = make_plan(
            config, model.groups, steps=self.batches.steps, at_least=model.frozen, separable=separable, augmentable=pixels
        )
        extra = None if objective.module is model else objective.module
        self.optimizer = build_optimizer(model, config, context.device, extra)
        self.averages = Averages(model, config, self.plan)
        self.state, self.best = TrainState(ranks), Best(objective.monitor, bool(objective.lower))
        self.kept, self.start = Snapshot(), Snapshot()
        self.rates = Rates(self.optimizer, config)
        self.guard, self.stepper = self.make_stepper()
        obstacle = cache_obstacle(objective, config)
        self.data = PhaseData(model, objective.sources, objective.valid, context, frozen=objective.frozen, obstacle=obstacle)
        self.writer = CheckpointWriter(context.folder / "checkpoint", self._parts(), ranks, lambda: self.state.steps)
        self._runner = EpochRunner(
            context,
            self.state,
            stepper=self.stepper,
            guard=self.guard,
            batches=self.batches,
            rates=self.rates,
            averages=self.averages,
            writer=self.writer,
            explain=self._explain,
        )
        self._phase, self._began = -1, 0.0
        self._trackers: list[Any] = []

    def _parts(self) -> Mapping[str, Stateful]:
        """Return everything with state, in the order in which it is loaded; random states come last."""
        ranks = self.context.ranks
        return {
            **self.objective.parts(),
            "identity": Identity(self.objective),
            "objective": self.objective,
            **self.averages.parts,
            "model": ModelValues(self.objective.module, ranks),
            "optimizer": OptimizerState(self.optimizer, ranks),
            "run": self.state,
            "best": self.best,
            "rates": self.rates,
            "kept": self.kept,
            "start": self.start,
            "random": RandomStates(ranks, self.state),
        }

    def run(self, saved: Checkpoint | None) -> None:
        """Train to the end of the plan, from ``saved`` where it is given, and load the kept epoch's values.

        Raises:
            TrainingError: If a loss or gradient is not finite, or no checkpoint can be written.
            InterruptedRunError: If a signal came.
        """
        context, ranks = self.context, self.context.ranks
        with context.progress, closing(self.data.loaders):
            if saved is not None:
                distribute(saved, self._parts())
            elif ranks.rank:  # dropout must not be the same everywhere; the first process is as one alone would be
                torch.manual_seed(hash((context.config.seed, ranks.rank)) % 2**63)
            self.optimizer.zero_grad(set_to_none=True)  # what the caller left on the model is no part of the first step
            samples = self._count(source.table for source in self.objective.sources.values()), self._count(self.objective.valid.values())
            resumed_at = self._position if saved is not None else ""
            line = headline(self.model, context.config, samples, context.accelerator, context.folder, resumed_at, processes=ranks.count)
            context.progress.note(line)
            with ranks.together():
                if ranks.main:
                    self._trackers = open_trackers(context.own.log_with, context.folder, context.config.to_dict())
            try:
                while self.state.epoch < len(self.plan):
                    self._epoch(self.plan[self.state.epoch])
                self._finalizer().finish()
            except Stopped:
                self.writer.save()
                signal = StopFlag()  # of whichever rank; the flag of this one still waits for the signal that the launcher sends to all
                signal.signum = max(ranks.gather(context.stop.signum))
                if ranks.main:
                    write_stop(context.folder, signal, self.state)
                raise ranks.known(interrupted(signal, context.folder, self._position)) from None
            except Exception:
                self.writer.rescue(self.guard.check)
                raise
            finally:
                close_trackers(self._trackers)

    @staticmethod
    def _count(tables: Any) -> int:
        return sum(map(len, tables))

    def _finalizer(self) -> Finalizer:
        return Finalizer(
            self.objective,
            self.context,
            self.plan,
            state=self.state,
            best=self.best,
            kept=self.kept,
            start=self.start,
            averages=self.averages,
            data=self.data,
            writer=self.writer,
            validate=partial(self.validate, None),
            report=self._report,
        )

    def _epoch(self, epoch: Epoch) -> None:
        state, context = self.state, self.context
        self._began = time.perf_counter() - state.seconds
        if self._phase != epoch.index:
            self._phase = epoch.index
            self.model.freeze(epoch.frozen)
            if context.config.compile:  # other parameters train: after eight variants of one function torch would give up compiling
                torch.compiler.reset()
            self.averages.settle(frozen_names(self.model))
        try:
            begins = epoch.done == state.step == 0
            if begins:
                state.passes = max(state.passes, state.split)
            self.data.passes.divisor = max(self.data.passes.divisor, state.passes)
            with context.ranks.together():
                streams = self.data.train(epoch)
            if begins:  # and not later: a resumed run computes what is stored in batches of the same size
                state.passes = self.data.passes.divisor
            self.set_mode(epoch, training=True)
            with self.objective.phase():
                if begins:
                    began = time.perf_counter()
                    self._begin_phase(epoch, streams)
                    self._began += time.perf_counter() - began  # trials are no part of what an epoch takes
                title = f"{epoch.phase.name} {state.epoch + 1}/{len(self.plan)}"
                self._runner.run(epoch, streams, self.data.forward(epoch), title, self._seconds)
            trained = self._seconds()
            with self.averages.applied():
                metrics = self.validate(epoch)
        except Stopped:
            state.seconds = self._seconds()
            raise
        record = {
            "epoch": state.epoch + 1,
            "phase": epoch.phase.name,
            "lr": self.rates.head(epoch, epoch.steps - 1),
            "train_loss": context.ranks.total(float(state.loss_sum)) / max(1, state.seen),
            **metrics,
            "seconds": round(self._seconds(), 3),
            "samples_per_second": round(state.seen / max(trained, 1e-9), 1),
        }
        with self.writer.updating():  # between two epochs: neither the one nor the other
            self._close_epoch(epoch, record)
        self._report(record)

    def _begin_phase(self, epoch: Epoch, streams: Mapping[str, Stream]) -> None:
        config = self.context.config
        self.rates.plateau.load_state_dict(Plateau().state_dict())
        if config.wise_ft < 1 and epoch.index == self.plan[-1].index:
            self.start.take(self.model)
        trial = AutoTune(self.context, self.plan, self.state, self.batches, self.rates, self.optimizer, self.objective, self._explain)
        forward, make_stepper = self.data.forward(epoch), partial(self.make_stepper, immediate=True)
        if config.batch_size == "auto":
            self.state.split = trial.fit_memory(epoch, streams, forward, make_stepper()[1])
        if self.rates.auto:
            self.rates.found[str(epoch.index)] = trial.find_rate(epoch, streams, forward, make_stepper()[1])

    def _close_epoch(self, epoch: Epoch, record: dict[str, Any]) -> None:
        state, context = self.state, self.context
        state.history.append(record)
        better = bool(self.objective.valid) and self.best.update(record["epoch"], record)
        if better:
            with self.averages.applied():  # the checkpoint below and the mean want the values that train
                self.kept.take(self.objective.module, self._frozen_names(), self._phase)
        self.averages.end_epoch(state.epoch)
        patience = context.config.patience
        tired = bool(patience) and bool(self.objective.valid) and self.best.waited >= patience
        following = next_phase(self.plan, state.epoch) if tired else state.epoch + 1
        ends = following >= len(self.plan) or self.plan[following].index != epoch.index
        if ends:
            self.best.waited = 0
        if self.rates.schedule(epoch) == "plateau":
            self.rates.plateau.update(better)
        state.next_epoch(following)
        if ends or self.writer.due:
            self.writer.save()
        if context.ranks.main:
            write_history(context.folder, state.history)
        context.progress.epoch(record, len(self.plan), better)

    def _report(self, record: dict[str, Any]) -> None:
        """Give a line of the history to the trackers and to the user's function."""
        state = random_state()  # the user's code may draw from it, and a resumed run does not come by here
        try:
            with self.context.ranks.together():
                if self.context.ranks.main:
                    log_record(self._trackers, record)
                    if self.context.own.on_epoch is not None:
                        self.context.own.on_epoch(dict(record))
        finally:
            restore_random_state(state)

    def validate(self, epoch: Epoch | None) -> dict[str, float]:
        """Return the metrics of the model as it is; without an epoch, of values that none of them trained."""
        if not self.objective.valid:
            return {}
        self.set_mode(epoch, training=False)
        ranks = self.context.ranks
        with ranks.together():
            outputs = {name: self.data.infer(epoch, name) for name in self.objective.valid}
        # Those of the first process: what is decided by them must not hang on the last digit of another's arithmetic.
        return ranks.gather(_numbers(self.objective.validate(outputs.__getitem__), self.objective.name))[0]

    def set_mode(self, epoch: Epoch | None, *, training: bool) -> None:
        """Put the modules into training or eval mode; where features are cached nothing of the model is run but the head."""
        module = self.objective.module
        only_head = module is self.model and epoch is not None and epoch.pooled and self.model.frozen == epoch.frozen
        (self.model.head if only_head else module).train(training)

    def make_stepper(self, *, immediate: bool = False) -> tuple[Guard, Stepper]:
        """Return what takes optimizer steps, and what watches them; ``immediate`` for trials that leave no trace."""
        context, module = self.context, self.objective.module
        guard = Guard(self.optimizer, module.parameters(), context.device, context.config.clip_grad, immediate=immediate)
        return guard, Stepper(self.objective, self.optimizer, guard, context.ranks, context.device)

    def _explain(self, error: NonFiniteError, epoch: Epoch, order: Sequence[Sequence[Indices]]) -> Exception:
        """Return the error for a loss or gradient that is not finite, with the samples of its step."""
        indices = [index for batch in order[error.step] for index in batch]
        where = f"epoch {self.state.epoch + 1} (phase {epoch.phase.name!r}), step {error.step + 1} of {epoch.steps}"
        lr = self.rates.peak(epoch) if self.optimizer.param_groups[-1]["lr"] else 0.0
        table = next(iter(self.objective.sources.values())).table
        return not_finite(error, where, indices, table, lr=lr, config=self.context.config, half=self.context.half)

    def _frozen_names(self) -> frozenset[str]:
        """Return the names in the objective's module of all values of the frozen prefix."""
        names, module = frozen_names(self.model), self.objective.module
        prefix = next(name for name, part in module.named_modules() if part is self.model)
        return frozenset(f"{prefix}.{name}" for name in names) if prefix else names

    def _seconds(self) -> float:
        """Return the seconds of the present epoch so far, those before an interruption included."""
        return time.perf_counter() - self._began

    @property
    def _position(self) -> str:
        if self.state.epoch == len(self.plan):
            return "the end of the last epoch, with nothing left to train"
        return f"epoch {self.state.epoch + 1}, after {self.state.step} of {self.plan[self.state.epoch].steps} steps"


def _numbers(metrics: Any, name: str) -> dict[str, float]:
    """Return the metrics of an objective as plain numbers.

    Raises:
        OptionError: If they are none.
    """
    try:
        return {str(key): float(value) for key, value in metrics.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise OptionError(f"validate() of {name!r} returned {metrics!r}; it must return a dict of numbers") from error


def cache_obstacle(objective: Objective, config: Config) -> str:
    """Return why activations of the frozen prefix must not be stored; empty where they may be."""
    return "compiled code is not entered in the middle" if config.compile else objective.whole


def _is_plain(pool: object) -> bool:
    """Tell whether pooled features can be stored: those of a module that learns nothing by itself."""
    return isinstance(pool, nn.Module) and not any(True for _ in pool.parameters())
