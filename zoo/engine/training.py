"""The inside of one run: phases, epochs, steps."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from zoo.adapter import TaskModel
from zoo.data.open import Table
from zoo.data.table import flat_targets
from zoo.data.transforms import Augment, mix_batch
from zoo.declare import Text
from zoo.engine.averages import Averages
from zoo.engine.averaging import interpolate, refresh_statistics
from zoo.engine.best import Best, resolve_monitor
from zoo.engine.checkpoint import Checkpoint, write_checkpoint
from zoo.engine.config import Config
from zoo.engine.guard import EVERY, Guard, NonFiniteError
from zoo.engine.loader import Loaded
from zoo.engine.loss import Loss, class_weights
from zoo.engine.messages import headline, interrupted, no_checkpoint, not_finite
from zoo.engine.metrics import compute_metrics
from zoo.engine.optimizer import build_optimizer
from zoo.engine.plan import Epoch, make_plan, next_phase
from zoo.engine.plateau import Plateau
from zoo.engine.progress import Progress
from zoo.engine.ranks import Ranks
from zoo.engine.run import write_history
from zoo.engine.sampler import Batch, balancing_weights, batches_by_length, epoch_order, even_batches, ordered_batches
from zoo.engine.scale import TargetScale, measure
from zoo.engine.schedule import rate
from zoo.engine.signals import StopFlag, Stopped
from zoo.engine.state import State, values_of
from zoo.engine.step import Stepper
from zoo.engine.streams import Stream, Streams
from zoo.tuning import Regularizers

# Seconds that may pass without a checkpoint. Epochs on cached features take milliseconds, a checkpoint takes longer.
INTERVAL = 30.0


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
        self.train = self._encoded(train)
        self.truth: npt.NDArray[Any] | None = None if valid is None else np.asarray(valid.targets)
        self.draw = balancing_weights(np.asarray(train.targets)) if config.balanced_sampling and train.classes else None
        weights = class_weights(config.class_weights, flat_targets(np.asarray(train.targets)), train.classes)
        loss = Loss(model.task, config.label_smoothing, None if weights is None else weights.to(device))
        # Cached features need a head that tells pooling and logits apart.
        separable = hasattr(model.head, "logits") and hasattr(model.head, "pool")
        pixels = not isinstance(model.inputs, Text)
        self.steps = -(-len(even_batches(np.arange(len(train)), config.samples)) // config.accumulate)
        self.plan = make_plan(config, model.groups, steps=self.steps, at_least=model.frozen, separable=separable, augmentable=pixels)
        self.optimizer = build_optimizer(model, config, device)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.guard = Guard(self.optimizer, model.parameters(), device, config.clip_grad)
        penalty = penalties.penalty if penalties else None
        self.stepper = Stepper(model, loss, self.optimizer, self.guard, ranks, device, penalty=penalty)
        self.augment = Augment(**(config.augment or {}))
        self.averages = Averages(model, config, self.plan)
        self.state = State(Best(resolve_monitor(config.monitor, model.task)))
        self.progress = Progress(quiet or not ranks.main, self.state.best.monitor)
        self.streams = Streams(
            model,
            self.train,
            valid,
            config,
            accelerator,
            layout=layout,
            progress=self.progress,
            poll=stop.poll,
            folder=folder,
            ranks=ranks,
            enter=penalties is None or not penalties.needs_inputs,
        )
        self._saved_at = time.monotonic()

    def run(self, saved: Checkpoint | None) -> None:
        """Train to the end of the plan, from ``saved`` where it is given, and load the kept epoch's values.

        Raises:
            TrainingError: If a loss or gradient is not finite, or no checkpoint can be written.
            InterruptedRunError: If a signal came.
        """
        with self.progress, self._target_scale():
            if saved is not None:  # its head puts out standard units, so it comes after the model was brought to them
                self._restore(saved)
            elif self.ranks.rank:  # dropout must not be the same everywhere; the first process is as one alone would be
                torch.manual_seed(hash((self.config.seed, self.ranks.rank)) % 2**63)
            samples = len(self.train), 0 if self.truth is None else len(self.truth)
            resumed_at = self._position if saved is not None else ""
            self.progress.note(headline(self.model, self.config, samples, self.accelerator, self.folder, resumed_at))
            try:
                while self.state.epoch < len(self.plan):
                    self._epoch(self.plan[self.state.epoch])
                self._conclude()
            except Stopped:
                self._save()
                raise interrupted(self.stop, self.folder, self._position) from None

    def _epoch(self, epoch: Epoch) -> None:
        state, started = self.state, time.perf_counter() - self.state.seconds
        self.model.freeze(epoch.frozen)
        try:
            with self.ranks.together():
                stream = self.streams.train(epoch)
            self.model.train()
            if epoch.done == state.step == 0:
                self._begin_phase(epoch, stream)
            with self.penalties.watching() if self.penalties else nullcontext():
                self._steps(epoch, stream)
            trained = time.perf_counter() - started
            with self.averages.applied():
                metrics = self._validate(epoch)
        except Stopped:
            state.seconds = time.perf_counter() - started
            raise
        record = {
            "epoch": state.epoch + 1,
            "phase": epoch.phase.name,
            "lr": self._factor(epoch, epoch.steps - 1) * self._lr(epoch),
            "train_loss": self._mean_loss(),
            **metrics,
            "seconds": round(time.perf_counter() - started, 3),
            "samples_per_second": round(state.seen / max(trained, 1e-9), 1),
        }
        self._close_epoch(epoch, record)

    def _begin_phase(self, epoch: Epoch, stream: Stream) -> None:
        self.state.plateau = Plateau()
        if self.config.wise_ft < 1 and epoch.index == self.plan[-1].index:
            self.state.start = values_of(self.model)

    def _conclude(self) -> None:
        """Load what is kept, and apply what is done to it after training."""
        state = self.state
        done = {record["phase"] for record in state.history}
        if state.kept:
            self.model.load_state_dict(state.kept)
        elif self.averages.ema is not None and not done & {"average", "wise-ft"}:
            self.averages.ema.copy_to(self.model)
        if self.averages.mean is not None and self.averages.mean.updates and "average" not in done:
            before = values_of(self.model)
            self.averages.mean.copy_to(self.model)
            self._refresh_statistics()
            if not self._judge("average") and self.truth is not None:
                self.model.load_state_dict(before)
        if state.start and "wise-ft" not in done:
            interpolate(self.model, state.start, self.config.wise_ft)
            self._refresh_statistics()
            self._judge("wise-ft", asked=True)

    def _judge(self, name: str, *, asked: bool = False) -> bool:
        """Validate values that no epoch ended with, as one more line of the history; tell whether they are kept."""
        started, last = time.perf_counter(), self.state.history[-1]
        metrics = self._validate(None)
        record = {"epoch": last["epoch"] + 1, "phase": name, "lr": 0.0, "train_loss": last["train_loss"], **metrics}
        record |= {"seconds": round(time.perf_counter() - started, 3), "samples_per_second": 0.0}
        self.state.history.append(record)
        better = self.truth is not None and self.state.best.update(record["epoch"], record)
        if asked and self.truth is not None:
            self.state.best.epoch = record["epoch"]
        if better or asked:
            self.state.keep(self.model)
        self.progress.epoch(record, record["epoch"], better or asked)
        self._save()
        return better

    def _refresh_statistics(self) -> None:
        """Let BatchNorm see the training data with the new values, where its statistics moved in training."""
        frozen = self.plan[-1].frozen
        self.model.freeze(frozen)
        loader = self.streams.plain()
        inputs = (x for x, _, _ in loader.batches(ordered_batches(len(self.train), self.config.samples, loader.samples.lengths)))
        refresh_statistics(self.model, inputs)

    def _close_epoch(self, epoch: Epoch, record: dict[str, Any]) -> None:
        state = self.state
        state.history.append(record)
        better = self.truth is not None and state.best.update(record["epoch"], record)
        if better:
            with self.averages.applied():  # the checkpoint below and the mean want the values that train
                state.keep(self.model)
        self.averages.end_epoch(state.epoch)
        tired = bool(self.config.patience) and self.truth is not None and state.best.waited >= self.config.patience
        following = next_phase(self.plan, state.epoch) if tired else state.epoch + 1
        ends = following >= len(self.plan) or self.plan[following].index != epoch.index
        if ends:
            state.best.waited = 0
        if self._schedule(epoch) == "plateau":
            state.plateau.update(better)
        state.next_epoch(following)
        if ends or time.monotonic() - self._saved_at >= INTERVAL:
            self._save()
        if self.ranks.main:
            write_history(self.folder, state.history)
        self.progress.epoch(record, len(self.plan), better)

    def _steps(self, epoch: Epoch, stream: Stream) -> None:
        state, size = self.state, self.config.accumulate
        order = self._order(stream.lengths)[: epoch.steps * size]
        mine = [part for batch in order[state.step * size :] if (part := self.ranks.part(batch))]
        batches = iter(stream.batches(mine, state.epoch))
        self.stepper.split = state.split
        self.progress.begin(f"{epoch.phase.name} {state.epoch + 1}/{len(self.plan)}", epoch.steps)
        explain = partial(self._not_finite, epoch, order)
        for step in range(state.step, epoch.steps):
            self._rate(epoch, step)
            whole = order[step * size : (step + 1) * size]
            samples = sum(len(batch) for batch in whole)
            value, stop = self.stepper.take(
                partial(self._load, epoch, batches, step, whole),
                stream.forward,
                step=step,
                samples=samples,
                stopped=lambda: bool(self.stop.signum),
                explain=explain,
            )
            state.loss_sum += value * samples
            state.step, state.steps, state.split = step + 1, state.steps + 1, self.stepper.split
            state.seen += samples
            self.averages.end_step()
            self._after_step(step, stop, explain)
        self._check(explain)
        state.loss_sum = float(self.ranks.fill(np.array([float(state.loss_sum)]))[0])

    def _load(self, epoch: Epoch, batches: Iterator[Loaded], step: int, whole: Sequence[Batch]) -> list[Loaded]:
        """Return this rank's batches of one step, mixed where they are to be."""
        loaded = [next(batches) for batch in whole if self.ranks.part(batch)]
        if epoch.cached or not epoch.augment or not (self.augment.mixup or self.augment.cutmix):
            return loaded
        return [self._mixed(batch, step, part) for part, batch in enumerate(loaded)]

    def _mixed(self, batch: Loaded, step: int, part: int) -> Loaded:
        x, y, indices = batch
        assert isinstance(x, Tensor), "only pixels are mixed"
        other = f"/{self.ranks.rank}" if self.ranks.rank else ""
        rng = random.Random(f"{self.config.seed}/{self.state.epoch}/{step}/{part}/mix{other}")
        return (*mix_batch(x, self._soft(y), self.augment, rng), indices)

    def _after_step(self, step: int, stop: bool, explain: Callable[[NonFiniteError], Exception]) -> None:
        if (step + 1) % EVERY == 0:
            self._check(explain)
        if self.progress.due:
            self.progress.step(step + 1, f"loss {self._mean_loss():.4f}")
        if stop or (self.ranks.count == 1 and self.stop.signum):
            self._check(explain)  # on a GPU, steps that nobody has looked at yet must not end up in a checkpoint unseen
            raise Stopped

    def _check(self, explain: Callable[[NonFiniteError], Exception]) -> None:
        try:
            self.guard.check()
        except NonFiniteError as error:
            raise explain(error) from error

    def _not_finite(self, epoch: Epoch, order: Sequence[Batch], error: NonFiniteError) -> Exception:
        size = self.config.accumulate
        indices = [index for batch in order[error.step * size : (error.step + 1) * size] for index in batch]
        where = f"epoch {self.state.epoch + 1} (phase {epoch.phase.name!r}), step {error.step + 1} of {epoch.steps}"
        return not_finite(error, where, indices, self.train, self._lr(epoch))

    def _soft(self, targets: Tensor) -> Tensor:
        """Return targets that can be mixed: single labels as one-hot rows."""
        return functional.one_hot(targets, self.model.num_classes).float() if self.model.task == "single-label" else targets

    def _validate(self, epoch: Epoch | None) -> dict[str, float]:
        """Return the metrics of the model as it is; without an epoch, of values that none of them trained."""
        if self.truth is None:
            return {}
        self.model.eval()
        with self.ranks.together():
            logits = self.streams.valid_logits(epoch)
        if self.scale is None:
            return compute_metrics(self.model.task, logits, self.truth, self.train.classes)
        error = logits - self.scale.encode(self.truth)
        return {"loss": float((error**2).mean()), **compute_metrics(self.model.task, self.scale.decode(logits), self.truth)}

    def _order(self, lengths: npt.NDArray[np.int64] | None = None) -> list[Batch]:
        seed, epoch = self.config.seed, self.state.epoch
        order = epoch_order(len(self.train), seed, epoch, self.draw)
        if lengths is None:
            return even_batches(order, self.config.samples)
        return batches_by_length(order, self.config.samples, lengths, seed, epoch)

    def _schedule(self, epoch: Epoch) -> str:
        return epoch.phase.schedule or self.config.schedule

    def _lr(self, epoch: Epoch) -> float:
        """Return the learning rate of the head in a phase, as far as it is known."""
        return self.state.rates.get(str(epoch.index), 1.0) if self.config.lr == "auto" else self.config.lr

    def _factor(self, epoch: Epoch, step: int) -> float:
        """Return the factor on the head's rate: of the phase, unless a range test found a rate for it, and of the schedule."""
        own = 1.0 if self.config.lr == "auto" else epoch.phase.lr
        shape = rate(epoch.before + step, epoch.total, self.config.warmup, self._schedule(epoch))
        return own * shape * self.state.plateau.factor

    def _rate(self, epoch: Epoch, step: int) -> None:
        factor = self._factor(epoch, step) * (self._lr(epoch) if self.config.lr == "auto" else 1.0)
        for group, base in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = base * factor

    def _mean_loss(self) -> float:
        return float(self.state.loss_sum) / max(1, self.state.seen)

    def _encoded(self, table: Table) -> Table:
        return table if self.scale is None else replace(table, targets=self.scale.encode(np.asarray(table.targets)))

    @contextmanager
    def _target_scale(self) -> Iterator[None]:
        """Let the model put out standard units inside, its targets' own unit outside."""
        if self.scale is None:
            yield
            return
        self.scale.unfold(self.model.head)
        try:
            yield
        finally:
            self.scale.fold(self.model.head)

    def _save(self) -> None:
        folder = self.folder / "checkpoint"
        checkpoint = self.state.checkpoint(self.model, self.optimizer, self.ranks)
        checkpoint = replace(checkpoint, tensors=dict(checkpoint.tensors) | self.averages.tensors() | self._penalty_tensors())
        with self.ranks.together():
            if self.ranks.main:
                try:
                    write_checkpoint(folder, self.state.steps, checkpoint)
                except OSError as error:
                    raise no_checkpoint(error, folder) from error
        self._saved_at = time.monotonic()

    def _penalty_tensors(self) -> dict[str, Mapping[str, Tensor]]:
        held = self.penalties.state() if self.penalties else {}
        return {"penalties": held} if held else {}

    def _restore(self, saved: Checkpoint) -> None:
        if self.penalties and "penalties" in saved.tensors:
            self.penalties.restore(saved.tensors["penalties"])
        self.averages.restore(saved.tensors)
        self.state.restore(saved, self.model, self.optimizer, self.ranks)

    @property
    def _position(self) -> str:
        steps = self.plan[self.state.epoch].steps if self.state.epoch < len(self.plan) else 0
        return f"epoch {self.state.epoch + 1}, after {self.state.step} of {steps} steps"
