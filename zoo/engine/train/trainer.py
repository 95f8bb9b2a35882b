"""Training: the phases and epochs of one run."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Any

import torch

from zoo.data.dataset import Batch
from zoo.data.nondeterminism import is_nondeterministic
from zoo.data.table import Table
from zoo.declare import Text
from zoo.engine.cache.activation_cache import targets_of
from zoo.engine.cache.phase_data import PhaseData
from zoo.engine.distributed.sharding import check_batches
from zoo.engine.loading.batches import StepBatches
from zoo.engine.loading.stream import Stream
from zoo.engine.objective.objective import Objective, checked_metrics, reads_stored, run_cache_obstacle
from zoo.engine.optim.lr_schedule import Plateau
from zoo.engine.optim.nonfinite import Guard
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import Epoch, list_epochs, next_phase, reads_pooled
from zoo.engine.options.recipe import RESERVED
from zoo.engine.rundir.checkpoint import Checkpoint
from zoo.engine.rundir.checkpoint_writer import CheckpointWriter
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.rundir.run_folder import write_history
from zoo.engine.rundir.stateful import distribute
from zoo.engine.rundir.trackers import EpochReports
from zoo.engine.runtime.progress import time_left
from zoo.engine.runtime.signals import StopFlag, Stopped, interrupted
from zoo.engine.train.auto_tune import AutoTune
from zoo.engine.train.finalize import Finalizer
from zoo.engine.train.messages import corrupt_inputs, failed_epoch, headline
from zoo.engine.train.optimizer_step import Stepper
from zoo.engine.train.run_parts import RunParts
from zoo.engine.train.train_epoch import EpochRunner
from zoo.engine.train.train_state import frozen_names, write_stop
from zoo.errors import CorruptInputError, OwnPartError
from zoo.tasks.find import find_task

log = logging.getLogger("zoo")


class Training:
    """One run; to be built while the objective is active.

    Args:
        objective: What is minimised; its modules are on the device.
        context: The conditions of the run.

    Attributes:
        objective: The objective.
        context: The conditions of the run.
        model: The model that is fine-tuned.
        batches: The samples of each step.
        parts: The objects with state.
        state: Position of the run and its history, one of the parts.
        best: The best epoch so far, one of the parts.
        data: Batches and validation outputs.
        steady: Whether what is computed once may be: samples are the same each time that they are read.
    """

    def __init__(self, objective: Objective, context: RunContext) -> None:
        config, model, ranks = context.config, objective.model, context.ranks
        self.objective, self.context, self.model = objective, context, model
        self.batches = StepBatches(objective.sources, config, ranks, objective.soften, by_length=objective.by_length)
        check_batches(self.batches.smallest, ranks, separable=objective.separable)
        epochs = _epochs(objective, config, self.batches.steps)
        stores = bool(objective.frozen) or any(epoch.cached or epoch.solved for epoch in epochs)
        self.steady = not stores or _are_steady(objective, context)
        if not self.steady:
            epochs = _epochs(objective, config, self.batches.steps, steady=False)
        if context.advises and config.epochs and config.epochs > len(epochs) and all(epoch.solved for epoch in epochs):
            log.info("epochs=%d has no effect: the head is solved in one; solve_head=False trains it", config.epochs)
        objective.total_steps, objective.ranks = sum(epoch.steps for epoch in epochs), ranks
        self.parts = RunParts(objective, context, epochs)
        self.state, self.best = self.parts.state, self.parts.best
        guard, stepper = self.make_stepper()
        obstacle = run_cache_obstacle(objective, config)
        self.data = PhaseData(
            model, objective.sources, objective.valid, context, frozen=objective.frozen, obstacle=obstacle, steady=self.steady
        )
        self._guard, self._reports = guard, EpochReports(context)
        self._writer = CheckpointWriter(context.folder / "checkpoint", self.parts.by_name(), ranks, lambda: self.state.steps)
        self._runner = EpochRunner(self.parts, context, stepper=stepper, guard=guard, batches=self.batches, writer=self._writer)
        self._phase, self._epoch_started = -1, 0.0

    def run(self, saved: Checkpoint | None) -> None:
        """Train to the end of the last phase, from ``saved`` where it is given, and load the values of the best epoch.

        Raises:
            OwnPartError: If a function of the user's raises, with the epoch.
            TrainingError: If a loss or gradient is not finite, or no checkpoint can be written.
            InterruptedRunError: If a signal came.
        """
        context, ranks, parts = self.context, self.context.ranks, self.parts
        with context.progress, closing(self.data.loaders):
            if saved is not None:
                distribute(saved, parts.by_name())
            elif ranks.rank:  # dropout must differ between ranks; the first draws as a single process would
                torch.manual_seed(hash((context.config.seed, ranks.rank)) % 2**63)
            parts.optimizer.zero_grad(set_to_none=True)  # gradients that the caller left on the model
            after = zip(RESERVED, (context.config.average, context.config.wise_ft < 1, context.config.refit_bias), strict=True)
            context.progress.name_phases([*(epoch.phase.name for epoch in parts.epochs), *(name for name, wanted in after if wanted)])
            context.progress.note(headline(self.objective, context, parts.position if saved is not None else ""))
            self._reports.open()
            try:
                while self.state.epoch < len(parts.epochs):
                    self._epoch(parts.epochs[self.state.epoch])
                self._finalizer().finish()
                if find_task(self.model.task).thresholded:
                    self._choose_thresholds()
            except Stopped:
                self._writer.save()
                signal = StopFlag()  # a new one, as the flag of this rank still handles the signal that the launcher sends to all
                signal.signum = max(ranks.gather(context.stop.signum))
                if ranks.main:
                    write_stop(context.folder, signal, self.state)
                raise ranks.known(interrupted(signal, context.folder, parts.position)) from None
            except (Exception, KeyboardInterrupt) as error:  # an interrupt of the user's own loss or metric
                self._writer.rescue(self._guard.check)
                if isinstance(error, OwnPartError):
                    number = error.epoch or min(self.state.epoch + 1, len(parts.epochs))
                    error.args = (f"{error}; in {failed_epoch(number, len(parts.epochs), context.folder)}",)
                elif isinstance(error, CorruptInputError) and context.config.on_corrupt != "skip" and context.own.augment is None:
                    error.args = (f"{error}; {corrupt_inputs(self.objective, context)}",)
                raise
            finally:
                self._reports.close()

    def _finalizer(self) -> Finalizer:
        validate, report = partial(self._validate, None), self._reports.report
        return Finalizer(self.parts, self.context, data=self.data, writer=self._writer, validate=validate, report=report)

    def _epoch(self, epoch: Epoch) -> None:
        state = self.state
        self._epoch_started = time.perf_counter() - state.seconds
        if self._phase != epoch.index:
            self._set_frozen(epoch)
        try:
            found = self._train(epoch)
            trained = self._seconds()
            with self.parts.averages.applied():
                metrics = self._validate(epoch)
        except Stopped:
            state.seconds = self._seconds()
            raise
        record = self._record(epoch, found, metrics, trained=trained)
        with self._writer.updating():  # the state is inconsistent between two epochs
            self._close_epoch(epoch, record)
        self._reports.report(record)

    def _set_frozen(self, epoch: Epoch) -> None:
        self._phase = epoch.index
        self.model.freeze(epoch.frozen)
        if self.context.config.compile:  # other parameters train, and torch stops compiling after eight variants of a function
            torch.compiler.reset()
        self.parts.averages.settle(frozen_names(self.model))

    def _train(self, epoch: Epoch) -> dict[str, float | bool]:
        """Take the steps of an epoch, or solve the head; return its part of the record: the last rate of the head, or the penalty."""
        state = self.state
        at_start = epoch.done == state.step == 0
        if at_start:
            state.pass_divisor = max(state.pass_divisor, state.micro_batches)
        self.data.passes.divisor = max(self.data.passes.divisor, state.pass_divisor)
        self.data.augments = state.augments
        with self.context.ranks.together():
            streams = self.data.train(epoch)
        if at_start:  # so that a resumed run stores outputs in batches of the same size
            state.pass_divisor = self.data.passes.divisor
        self._set_mode(epoch, training=True)
        with self.objective.phase():
            if at_start:
                trials_started = time.perf_counter()
                self._begin_phase(epoch, streams)
                self._epoch_started += time.perf_counter() - trials_started  # without the trials
            title = f"{epoch.phase.name} {state.epoch + 1}/{len(self.parts.epochs)}"
            if epoch.solved:
                return self._solve(epoch, title)
            self._runner.run(epoch, streams, self.data.forward(epoch), title, self._seconds)
        lr = self.parts.rates.head(epoch, epoch.steps - 1)
        return {"lr": float(f"{lr:.12g}")}  # 0.0003, where the product of a rate and a factor has one bit more

    def _record(self, epoch: Epoch, found: Mapping[str, float | bool], metrics: Mapping[str, float], *, trained: float) -> dict[str, Any]:
        """Return the line of the history of an epoch whose steps took ``trained`` seconds."""
        state = self.state
        return {
            "epoch": state.epoch + 1,
            "phase": epoch.phase.name,
            **found,
            "train_loss": self.context.ranks.total(float(state.loss_sum)) / max(1, state.seen),
            **metrics,
            "seconds": round(self._seconds(), 3),
            "samples_per_second": round(state.seen / max(trained, 1e-9), 1),
        }

    def _solve(self, epoch: Epoch, title: str) -> dict[str, float | bool]:
        """Solve the head instead of taking steps; return its part of the record."""
        state, objective, context = self.state, self.objective, self.context
        name, source = next(iter(objective.sources.items()))
        context.progress.begin(f"{title}: head", 0)
        with context.ranks.together():
            features, table = self.data.head_inputs(name)
            found = objective.solve(features, table, device=context.device, seed=context.config.seed, poll=context.poll)
            suits = not self._judges_augmentation(table) or objective.suits_augmentation(
                features, partial(self.data.prefix.augmented_features, name), table, context=context
            )
        solved, augments = found.of_first(context.ranks), context.ranks.gather(suits)
        weight = objective.weight({name: Batch(features, targets_of(table).to(context.device), [*range(len(table))])})
        with self._writer.updating():
            solved.copy_to(self.model.head)
            state.seen = len(source.table)
            state.augments = augments[0]
            state.loss_sum = solved.loss / float(weight) * state.seen if context.ranks.main else 0.0
        return solved.record

    def _judges_augmentation(self, table: Table) -> bool:
        """Return whether a later phase augments images and nobody said how."""
        context, epochs = self.context, self.parts.epochs
        return (
            context.config.judge_augment and context.own.augment is None and table.reads == "image" and any(one.augment for one in epochs)
        )

    def _begin_phase(self, epoch: Epoch, streams: Mapping[str, Stream]) -> None:
        config, parts = self.context.config, self.parts
        parts.rates.plateau.load_state_dict(Plateau().state_dict())
        if config.wise_ft < 1 and epoch.index == parts.epochs[-1].index:
            parts.start_values.take(self.model)
        if epoch.solved:
            return
        trial = AutoTune(parts, self.context, self.batches)
        forward, make_stepper = self.data.forward(epoch), partial(self.make_stepper, immediate=True)
        if config.batch_size == "auto":
            self.state.micro_batches = trial.fit_memory(epoch, streams, forward, make_stepper()[1])
        if parts.rates.auto:
            parts.rates.found[str(epoch.index)] = trial.find_rate(epoch, streams, forward, make_stepper()[1])

    def _close_epoch(self, epoch: Epoch, record: dict[str, Any]) -> None:
        state, context, parts = self.state, self.context, self.parts
        state.history.append(record)
        better = bool(self.objective.valid) and self.best.update(record["epoch"], record)
        if better:
            with parts.averages.applied():  # only here: the checkpoint below and the mean need the values that train
                parts.copy_best_values(self._phase)
        parts.averages.end_epoch(state.epoch)
        patience = context.config.patience
        exhausted = bool(patience) and bool(self.objective.valid) and self.best.waited >= patience
        following = next_phase(parts.epochs, state.epoch) if exhausted else state.epoch + 1
        ends = following >= len(parts.epochs) or parts.epochs[following].index != epoch.index
        if ends:
            self.best.waited = 0
        if parts.rates.schedule(epoch) == "plateau":
            parts.rates.plateau.update(better)
        state.next_epoch(following)
        if ends or self._writer.due:
            self._writer.save()
        if context.ranks.main:
            write_history(context.folder, state.history)
        context.progress.epoch(record, len(parts.epochs), better, cached=epoch.pooled, left=self._time_left(epoch))

    def _time_left(self, epoch: Epoch) -> str:
        """Return an estimate of the time to the end of the run, after an epoch."""
        state, epochs = self.state, self.parts.epochs
        of_phase = [record["seconds"] for record in state.history[-epoch.done - 1 :]]
        ahead = [other.index for other in epochs[state.epoch :]]
        return time_left(of_phase, ahead.count(epoch.index), more=any(index != epoch.index for index in ahead))

    def _validate(self, epoch: Epoch | None) -> dict[str, float]:
        """Return the metrics of the model as it is; without an epoch, from raw inputs."""
        if not self.objective.valid:
            return {}
        self._set_mode(epoch, training=False)
        ranks = self.context.ranks
        with ranks.together():
            outputs = {name: self.data.infer(epoch, name) for name in self.objective.valid}
        # The metrics of the first rank: those of others may differ in the last digit, and all must decide alike.
        return ranks.gather(checked_metrics(self.objective.validate(outputs.__getitem__), self.objective))[0]

    def _choose_thresholds(self) -> None:
        """Choose them for the values that are kept: on validation data, else on the training samples where more than the head trained."""
        self._validate(None)
        if not self.objective.rechooses_thresholds or all(epoch.solved for epoch in self.parts.epochs):
            return
        self._set_mode(None, training=False)
        with self.context.ranks.together():
            outputs = self.data.infer(None, next(iter(self.objective.sources)))
        self.objective.choose_thresholds(outputs)

    def _set_mode(self, epoch: Epoch | None, *, training: bool) -> None:
        """Set training or eval mode; where features are stored, of the head alone, as nothing else runs."""
        module = self.objective.module
        only_head = module is self.model and epoch is not None and epoch.pooled and self.model.frozen == epoch.frozen
        (self.model.head if only_head else module).train(training)

    def make_stepper(self, *, immediate: bool = False) -> tuple[Guard, Stepper]:
        """Return a stepper and the guard of its losses; ``immediate`` for trials that are rolled back."""
        context, module = self.context, self.objective.module
        guard = Guard(self.parts.optimizer, module.parameters(), context.device, context.config.clip_grad, immediate=immediate)
        return guard, Stepper(self.objective, self.parts.optimizer, guard, context.ranks, context.device)

    def _seconds(self) -> float:
        """Return the seconds of the present epoch so far, those before an interruption included."""
        return time.perf_counter() - self._epoch_started


def _epochs(objective: Objective, config: Config, steps: int, *, steady: bool = True) -> list[Epoch]:
    model = objective.model
    return list_epochs(
        config,
        model.groups,
        steps=steps,
        at_least=model.frozen,
        separable=objective.pooled and reads_pooled(objective.model.head),
        steps_pooled=reads_stored(objective),
        solvable=objective.can_solve(config),
        per_token=find_task(model.task).per_token,
        augmentable=not isinstance(model.inputs, Text),
        steady=steady,
    )


def _are_steady(objective: Objective, context: RunContext) -> bool:
    """Return whether samples are the same each time that they are read; else nothing computed from them may be stored."""
    tables = [*(source.table for source in objective.sources.values()), *objective.valid.values()]
    found = next((table.source for table in tables if is_nondeterministic(table)), "")
    found = next(filter(None, context.ranks.gather(found)), "")
    if found:
        log.warning("%s draws its samples anew each time that they are read; what is frozen is computed every epoch", found)
    return not found
