"""The inside of one run: phases, epochs, steps."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from zoo.engine.best import Best, resolve_monitor
from zoo.engine.checkpoint import Checkpoint, write_checkpoint
from zoo.engine.config import Config
from zoo.engine.guard import EVERY, Guard, NonFiniteError
from zoo.engine.loader import Loaded
from zoo.engine.loss import class_weights, make_loss
from zoo.engine.messages import headline, interrupted, no_checkpoint, not_finite
from zoo.engine.metrics import compute_metrics
from zoo.engine.optimizer import build_optimizer
from zoo.engine.plan import Epoch, make_plan, next_phase
from zoo.engine.progress import Progress
from zoo.engine.run import write_history
from zoo.engine.sampler import Batch, balancing_weights, batches_by_length, epoch_order, even_batches
from zoo.engine.scale import TargetScale, measure
from zoo.engine.schedule import rate
from zoo.engine.signals import StopFlag, Stopped
from zoo.engine.state import State
from zoo.engine.streams import Stream, Streams

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
    ) -> None:
        self.model, self.config, self.accelerator, self.folder, self.stop = model, config, accelerator, folder, stop
        device = accelerator.device
        self.scale: TargetScale | None = measure(model.task, model.head, np.asarray(train.targets), model.num_classes)
        self.train = self._encoded(train)
        self.truth: npt.NDArray[Any] | None = None if valid is None else np.asarray(valid.targets)
        self.draw = balancing_weights(np.asarray(train.targets)) if config.balanced_sampling and train.classes else None
        weights = class_weights(config.class_weights, flat_targets(np.asarray(train.targets)), train.classes)
        self.loss = make_loss(model.task, smoothing=config.label_smoothing, weights=None if weights is None else weights.to(device))
        # Cached features need a head that tells pooling and logits apart.
        separable = hasattr(model.head, "logits") and hasattr(model.head, "pool")
        pixels = not isinstance(model.inputs, Text)
        self.plan = make_plan(config, model.groups, at_least=model.frozen, separable=separable, augmentable=pixels)
        self.optimizer = build_optimizer(model, config, device)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.guard = Guard(self.optimizer, model.parameters(), device, config.clip_grad)
        self.augment = Augment(**(config.augment or {}))
        self.state = State(Best(resolve_monitor(config.monitor, model.task)))
        self.progress = Progress(quiet, self.state.best.monitor)
        self.streams = Streams(
            model, self.train, valid, config, accelerator, layout=layout, progress=self.progress, poll=stop.poll, folder=folder
        )
        self.steps = -(-len(self._order()) // config.accumulate)
        self._saved_at = time.monotonic()

    def run(self, saved: Checkpoint | None) -> None:
        """Train to the end of the plan, from ``saved`` where it is given, and load the kept epoch's values.

        Raises:
            TrainingError: If a loss or gradient is not finite, or no checkpoint can be written.
            InterruptedRunError: If a signal came.
        """
        with self.progress, self._target_scale():
            if saved is not None:  # its head puts out standard units, so it comes after the model was brought to them
                self.state.restore(saved, self.model, self.optimizer)
            samples = len(self.train), 0 if self.truth is None else len(self.truth)
            resumed_at = self._position if saved is not None else ""
            self.progress.note(headline(self.model, self.config, samples, self.accelerator, self.folder, resumed_at))
            try:
                while self.state.epoch < len(self.plan):
                    self._epoch(self.plan[self.state.epoch])
            except Stopped:
                self._save()
                raise interrupted(self.stop, self.folder, self._position) from None
            if self.state.kept:
                self.model.load_state_dict(self.state.kept)

    def _epoch(self, epoch: Epoch) -> None:
        state, started = self.state, time.perf_counter() - self.state.seconds
        self.model.freeze(epoch.frozen)
        try:
            stream = self.streams.train(epoch)
            self.model.train()
            self._steps(epoch, stream)
            trained = time.perf_counter() - started
            metrics = self._validate(epoch)
        except Stopped:
            state.seconds = time.perf_counter() - started
            raise
        record = {
            "epoch": state.epoch + 1,
            "phase": epoch.phase.name,
            "lr": self._factor(epoch, self.steps - 1) * self.config.lr,
            "train_loss": self._mean_loss(),
            **metrics,
            "seconds": round(time.perf_counter() - started, 3),
            "samples_per_second": round(state.seen / max(trained, 1e-9), 1),
        }
        self._close_epoch(epoch, record)

    def _close_epoch(self, epoch: Epoch, record: dict[str, Any]) -> None:
        state = self.state
        state.history.append(record)
        better = self.truth is not None and state.best.update(record["epoch"], record)
        if better:
            state.keep(self.model)
        tired = bool(self.config.patience) and self.truth is not None and state.best.waited >= self.config.patience
        following = next_phase(self.plan, state.epoch) if tired else state.epoch + 1
        ends = following >= len(self.plan) or self.plan[following].index != epoch.index
        if ends:
            state.best.waited = 0
        state.next_epoch(following)
        if ends or time.monotonic() - self._saved_at >= INTERVAL:
            self._save()
        write_history(self.folder, state.history)
        self.progress.epoch(record, len(self.plan), better)

    def _steps(self, epoch: Epoch, stream: Stream) -> None:
        state, size = self.state, self.config.accumulate
        order = self._order(stream.lengths)
        batches = iter(stream.batches(order[state.step * size :], state.epoch))
        self.progress.begin(f"{epoch.phase.name} {state.epoch + 1}/{len(self.plan)}", self.steps)
        try:
            for step in range(state.step, self.steps):
                self._rate(epoch, step)
                parts = len(order[step * size : (step + 1) * size])
                for part in range(parts):
                    self._backward(epoch, stream, next(batches), step, part, parts)
                self.guard.see_gradients(step)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                state.step, state.steps = step + 1, state.steps + 1
                self._after_step(step)
            self.guard.check()
        except NonFiniteError as error:
            indices = [index for batch in order[error.step * size : (error.step + 1) * size] for index in batch]
            where = f"epoch {state.epoch + 1} (phase {epoch.phase.name!r}), step {error.step + 1} of {self.steps}"
            raise not_finite(error, where, indices, self.train, self.config.lr) from error

    def _backward(self, epoch: Epoch, stream: Stream, batch: Loaded, step: int, part: int, parts: int) -> None:
        x, y, indices = batch
        if epoch.augment and not epoch.cached and (self.augment.mixup or self.augment.cutmix):
            assert isinstance(x, Tensor), "only pixels are mixed"
            rng = random.Random(f"{self.config.seed}/{self.state.epoch}/{step}/{part}/mix")
            x, y = mix_batch(x, self._soft(y), self.augment, rng)
        loss = self.loss(stream.forward(x).float(), y)
        self.state.loss_sum += self.guard.see_loss(loss, step) * len(indices)
        self.accelerator.backward(loss / parts if parts > 1 else loss)
        self.state.seen += len(indices)

    def _after_step(self, step: int) -> None:
        if (step + 1) % EVERY == 0:
            self.guard.check()
        if self.progress.due:
            self.progress.step(step + 1, f"loss {self._mean_loss():.4f}")
        try:
            self.stop.poll()
        except Stopped:
            self.guard.check()  # on a GPU, steps that nobody has looked at yet must not end up in a checkpoint unseen
            raise

    def _soft(self, targets: Tensor) -> Tensor:
        """Return targets that can be mixed: single labels as one-hot rows."""
        return functional.one_hot(targets, self.model.num_classes).float() if self.model.task == "single-label" else targets

    def _validate(self, epoch: Epoch) -> dict[str, float]:
        if self.truth is None:
            return {}
        self.model.eval()
        logits = self.streams.valid_logits(epoch)
        if self.scale is None:
            return compute_metrics(self.model.task, logits, self.truth, self.train.classes)
        error = logits - self.scale.encode(self.truth)
        return {"loss": float((error**2).mean()), **compute_metrics(self.model.task, self.scale.decode(logits), self.truth)}

    def _order(self, lengths: npt.NDArray[np.int64] | None = None) -> list[Batch]:
        seed, epoch = self.config.seed, self.state.epoch
        order = epoch_order(len(self.train), seed, epoch, self.draw)
        if lengths is None:
            return even_batches(order, self.config.batch_size)
        return batches_by_length(order, self.config.batch_size, lengths, seed, epoch)

    def _factor(self, epoch: Epoch, step: int) -> float:
        return epoch.phase.lr * rate(epoch.done * self.steps + step, epoch.of * self.steps, self.config.warmup)

    def _rate(self, epoch: Epoch, step: int) -> None:
        factor = self._factor(epoch, step)
        for group, base in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = base * factor

    def _mean_loss(self) -> float:
        return float(self.state.loss_sum) / max(1, self.state.seen)

    def _encoded(self, table: Table) -> Table:
        return table if self.scale is None else dataclasses.replace(table, targets=self.scale.encode(np.asarray(table.targets)))

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
        try:
            write_checkpoint(folder, self.state.steps, self.state.checkpoint(self.model, self.optimizer))
        except OSError as error:
            raise no_checkpoint(error, folder) from error
        self._saved_at = time.monotonic()

    @property
    def _position(self) -> str:
        return f"epoch {self.state.epoch + 1}, after {self.state.step} of {self.steps} steps"
