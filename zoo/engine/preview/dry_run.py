"""Memory and time of each phase, measured in two steps on real batches with learning rate zero."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from zoo.data.dataset import Batch
from zoo.engine.cache.activation_cache import too_large
from zoo.engine.cache.phase_data import PhaseData
from zoo.engine.cache.tensor_store import IN_MEMORY
from zoo.engine.distributed.ranks import Status
from zoo.engine.loading.batches import StepBatches
from zoo.engine.loading.order import Indices
from zoo.engine.loading.stream import Source
from zoo.engine.optim.nonfinite import NonFiniteError
from zoo.engine.options.epochs import Epoch
from zoo.engine.runtime.memory_profile import Footprint, footprint
from zoo.engine.train.optimizer_step import Step
from zoo.engine.train.train_epoch import not_finite
from zoo.engine.train.trainer import Training

STEPS = 2


@dataclass
class Dry:
    """Memory and time of two steps of a phase.

    Attributes:
        reason: Why the frozen prefix is computed every epoch; empty if it is computed once, or nothing is frozen.
        caches: Bytes of each tensor that is stored of the frozen prefix, over all views and tables.
        micro_batch: Samples per forward; fewer than the batch if memory ran out.
        prefix: Memory of the pass through the frozen prefix, without the stored outputs.
        steps: Memory of the steps.
        passes: Memory of a validation.
        loading: Seconds to load one sample and make it a tensor.
        prefix_seconds: Seconds of the frozen prefix per sample, if it is computed once.
        step_loading: Seconds to load the samples of a step.
        step_seconds: Seconds of a step without loading.
        pass_seconds: Seconds of a validation per sample.
    """

    reason: str = ""
    caches: list[int] = field(default_factory=list)
    micro_batch: int = 0
    prefix: Footprint = field(default_factory=Footprint)
    steps: Footprint = field(default_factory=Footprint)
    passes: Footprint = field(default_factory=Footprint)
    loading: float = 0.0
    prefix_seconds: float = 0.0
    step_loading: float = 0.0
    step_seconds: float = 0.0
    pass_seconds: float = 0.0

    @property
    def in_memory(self) -> int:
        """Bytes of the caches that are in memory, not in a file."""
        return sum(size for size in self.caches if size <= IN_MEMORY)


class DryRun:
    """Takes the dry steps of the phases of a training, in their order.

    Args:
        training: The training, on a device; its loaders must run in this process.
        valid: Number of validation samples.
        obstacle: Why activations of the frozen prefix must not be stored; empty where they may be.
    """

    def __init__(self, training: Training, valid: int, *, obstacle: str = "") -> None:
        self._run, self._valid, self._obstacle = training, valid, obstacle
        self._config, self._device = training.context.config, training.context.device
        samples = training.data.loaders.first().samples
        text = samples.lengths is not None
        self.lengths: npt.NDArray[np.int64] = np.asarray(samples.lengths) if text else np.ones(len(samples), dtype=np.int64)
        order = training.batches.order(0, samples.lengths)
        heaviest = sorted(order, key=self._weight, reverse=True)[:STEPS]
        rows = list(dict.fromkeys(row for step in heaviest for batch in step for row in batch))
        place = {row: position for position, row in enumerate(rows)}
        # A single step is taken twice, as the optimizer has its state only in the second.
        steps = [[[place[row] for row in batch] for batch in step] for step in heaviest]
        self._order: list[list[Indices]] = (steps * STEPS)[:STEPS]
        self._first, *others = training.objective.sources
        self._sources = {self._first: self._few(self._first, rows)} | {name: self._few(name, range(len(rows))) for name in others}
        self._table = self._sources[self._first].table
        # The drawn samples make no difference here.
        plain = self._config.model_copy(update={"balanced_sampling": False})
        objective = training.objective
        self._batches = StepBatches(self._sources, plain, training.context.ranks, objective.soften, by_length=objective.by_length)
        # The texts of the dry steps are the longest.
        self.scale = float(np.mean([self._weight(step) for step in order])) / max(1, self._weight(heaviest[-1]))
        self.pass_scale = float(self.lengths.mean() / self.lengths[rows].mean())
        self._micro_batches = 1
        for group in training.parts.optimizer.param_groups:
            group["lr"] = 0.0

    def _few(self, name: str, rows: Sequence[int]) -> Source:
        source = self._run.objective.sources[name]
        return dataclasses.replace(source, table=source.table.select([row % len(source.table) for row in rows]))

    def _weight(self, step: Sequence[Indices]) -> int:
        return sum(len(batch) * int(self.lengths[batch].max()) for batch in step)

    def phase(self, epoch: Epoch) -> Dry:
        """Take the dry steps of a phase, given by its first epoch."""
        dry, model = Dry(reason=self._not_cached(epoch)), self._run.model
        model.freeze(epoch.frozen)
        data = self._data(self._obstacle)
        with footprint(self._device) as dry.prefix:
            data.train(epoch)
        dry.caches = self._caches(data)
        if epoch.cached and not epoch.pooled and (reason := data.prefix.reason or self._over_limit(dry.caches)):
            dry.reason, dry.caches, dry.prefix = reason, [], Footprint()
            data = self._data(reason)
        here = sum(sum(data.sizes(name, self._rows(len(source.table)))) for name, source in self._sources.items()) * self._config.views
        dry.prefix.peak = max(0, dry.prefix.peak - here)
        if not epoch.solved:
            self._take(dry, epoch, data)
        self._validate(dry, epoch, data)
        return dry

    def _take(self, dry: Dry, epoch: Epoch, data: PhaseData) -> None:
        run = self._run
        guard, stepper = run.make_stepper()
        streams, forward = data.train(epoch), data.forward(epoch)
        run.objective.module.train()
        stepper.begin(self._micro_batches)
        with footprint(self._device) as dry.steps, run.objective.phase():
            loads = self._batches.load(epoch, 0, streams, self._order)

            def load() -> list[dict[str, Batch]]:
                started = time.perf_counter()
                loaded = next(loads)
                dry.step_loading = time.perf_counter() - started
                return loaded

            for step, batches in enumerate(self._order):
                started = self._now()
                samples = sum(map(len, batches))
                explain = self._explain(epoch, batches)
                stepper.take(load, Step(step, samples, forward, asked=lambda: Status.FINE, explain=explain))
                run.parts.averages.end_step()
                dry.step_seconds = self._now() - started - dry.step_loading
            loads.close()  # type: ignore[attr-defined]  # a generator that holds the last batch
            try:
                guard.check()
            except NonFiniteError as error:
                raise explain(error) from error
        self._micro_batches = stepper.micro_batches
        dry.micro_batch = -(-max(len(batch) for step in self._order for batch in step) // stepper.micro_batches)

    def _validate(self, dry: Dry, epoch: Epoch, data: PhaseData) -> None:
        count = len(self._table)
        self._run.objective.module.eval()
        started = self._now()
        for _ in data.loaders.first().batches([list(range(count))]):
            pass
        dry.loading = (self._now() - started) / count
        started = self._now()
        with footprint(self._device) as dry.passes:
            self._infer(data, epoch)
        first = self._now() - started
        dry.passes.peak = max(0, dry.passes.peak - sum(sum(data.sizes(name, self._rows(count))) for name in self._valid_names))
        started = self._now()
        self._infer(data, epoch)
        again = self._now() - started
        passed = count * len(self._valid_names)
        dry.pass_seconds = again / passed
        dry.prefix_seconds = max(0.0, first - again) / passed if dry.caches else 0.0

    def _data(self, obstacle: str) -> PhaseData:
        run, objective = self._run, self._run.objective
        valid = dict.fromkeys(self._valid_names, self._table)
        return PhaseData(
            run.model,
            self._sources,
            valid,
            run.context,
            frozen=objective.frozen,
            obstacle=obstacle,
            share=False,
            steady=run.steady,
            quiet=True,  # the run itself logs how many of all texts are cut
        )

    @property
    def _valid_names(self) -> list[str]:
        """Names of the validation tables; one without validation too, to measure a pass."""
        return list(self._run.objective.valid) or ["valid"]

    def _caches(self, data: PhaseData) -> list[int]:
        """Return the bytes of each tensor that the run stores of its frozen prefix."""
        sizes: list[int] = []
        for name, source in self._run.objective.sources.items():
            sizes += data.sizes(name, self.lengths if name == self._first else self._rows(len(source.table))) * self._config.views
        return sizes + (data.sizes(self._first, self._rows(self._valid)) if self._valid else [])

    def _infer(self, data: PhaseData, epoch: Epoch) -> None:
        for name in self._valid_names:
            data.infer(epoch, name)

    def _rows(self, count: int) -> npt.NDArray[np.int64]:
        """Return lengths of ``count`` samples of other data, assumed to be like those of training."""
        return np.resize(self.lengths, count)

    def _over_limit(self, caches: Sequence[int]) -> str:
        limit = int(self._config.cache_gb * 2**30)
        return too_large(sum(caches), limit) if sum(caches) > limit else ""

    def _not_cached(self, epoch: Epoch) -> str:
        config = self._config
        if not epoch.frozen:
            return ""
        reasons = {
            "cache is off": not config.cache,
            "the model is sharded": config.shard,
            "images are augmented anew every epoch; views=2 or more keeps as many of them": not epoch.cached and not epoch.solved,
            self._obstacle: bool(self._obstacle) and not epoch.pooled,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def _explain(self, epoch: Epoch, batches: Sequence[Indices]) -> Callable[[NonFiniteError], Exception]:
        indices = [index for batch in batches for index in batch]
        where = f"a dry step (phase {epoch.phase.name!r})"
        run = self._run
        half = run.context.half
        return lambda error: not_finite(error, where, indices, self._table, lr=0.0, config=self._config, half=half)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
