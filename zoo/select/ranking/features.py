"""Pooled features of one candidate for all samples, and what a forward costs on this machine."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.images.pixel_store import PixelStore
from zoo.data.table import Table
from zoo.engine.cache.phase_data import PhaseData
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.loading.sources import check_tables, inputs_in_use
from zoo.engine.loading.stream import Source
from zoo.engine.options.config import Config
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.runtime.memory_profile import footprint, nbytes
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.rollback import tensors_of
from zoo.engine.runtime.signals import StopFlag
from zoo.engine.train.model_setup import prepared
from zoo.errors import TrainingError, count
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.select.ranking.limits import Excluded, Limits, reason_of
from zoo.tasks.find import find_task

REPEATS = 3  # forwards of one sample, of which the median counts
BATCH = 16  # samples of a batch that is timed where no pass was needed


class OutsideError(TrainingError):
    """A candidate whose measured values are outside of limits."""

    def __init__(self, excluded: Sequence[Excluded]) -> None:
        self.excluded = excluded
        super().__init__(reason_of(excluded))


@dataclass(frozen=True)
class Features:
    """Pooled features of a candidate, and what it costs.

    Attributes:
        values: One tensor per table, ``(samples, dim)``, float32, finite.
        parameters: Parameters of the backbone.
        latency_ms: Milliseconds of one forward of one sample, the median of a few.
        memory: Bytes of the weights, and of one forward of one sample at its peak.
        throughput: Samples per second of the pass, or of one batch where all features were known.
        seconds: Time of the passes.
    """

    values: Sequence[Tensor]
    parameters: int
    latency_ms: float
    memory: int
    throughput: float
    seconds: float


@dataclass(frozen=True)
class Conditions:
    """What is the same for all candidates.

    Attributes:
        task: Name of the task.
        config: The configuration of a linear probe, with its batch size.
        accelerator: Accelerate's device and precision.
        progress: Shows the passes.
        stop: Set by a signal.
        limits: Limits on what is measured.
        pixels: Decoded pixels that several candidates read, or None.
    """

    task: str
    config: Config
    accelerator: Any
    progress: Progress
    stop: StopFlag
    limits: Limits
    pixels: PixelStore | None = None


def adapted(backbone: Backbone, table: Table, task: str, seed: int) -> TaskModel:
    """Return a candidate with a head for the labels of a table."""
    outputs = find_task(task).outputs(table.targets, table.classes)  # type: ignore[arg-type]  # the data have labels
    return backbone.adapt(outputs, task=task, labels=table.classes or None, seed=seed)


def read_features(backbone: Backbone, tables: Sequence[Table], conditions: Conditions) -> Features:
    """Return the features of every table; those that are in the cache are not computed again.

    They are those of a run with ``recipe="linear-probe"`` to the bit, and such a run finds them.

    Raises:
        OutsideError: If a measured value is above its limit; no pass is made then.
        TrainingError: If features are not finite, or one sample alone does not fit into memory.
    """
    config = conditions.config
    model = adapted(backbone, tables[0], conditions.task, config.seed)
    checked = [check_tables(model, (table, None), config, whole=False)[0] for table in tables]
    model.inputs = inputs_in_use(model, config, checked[0])
    sources = {f"part {number}": Source(table) for number, table in enumerate(checked)}
    with (
        tempfile.TemporaryDirectory(prefix="zoo-rank-") as folder,
        prepared(model, config, conditions.accelerator) as (layout, _),
    ):
        context = RunContext(
            config, conditions.accelerator, Ranks(), Path(folder), layout, conditions.progress, conditions.stop, pixels=conditions.pixels
        )
        data = PhaseData(model, sources, {}, context, lasting=True)
        with closing(data.loaders):
            model.freeze(len(model.groups))
            return _read(model, data, context, list(sources), conditions.limits)


def _read(model: TaskModel, data: PhaseData, context: RunContext, names: list[str], limits: Limits) -> Features:
    latency, memory = _single(model, data, context)
    parameters = sum(parameter.numel() for parameter in model.backbone.parameters())
    measured = {"max_params": parameters, "max_latency_ms": latency, "max_memory": memory}
    if excluded := limits.of_values(model.spec.name, measured):
        raise OutsideError(excluded)
    started = time.perf_counter()
    values = [data.prefix.features(name)[0] for name in names]
    seconds = time.perf_counter() - started
    for part in values:
        if bad := int((~part.isfinite().all(1)).sum()):
            raise TrainingError(f"the features of {count(bad, 'sample')} of {len(part)} are not finite; look at its weights")
    speed = data.prefix.computed / seconds if data.prefix.computed else _of_batch(model, data, context)
    return Features(values, parameters, latency, memory, speed, seconds)


def _single(model: TaskModel, data: PhaseData, context: RunContext) -> tuple[float, int]:
    """Return milliseconds and peak bytes of one forward of one sample, weights included."""
    model.eval()
    x = next(data.inputs([[0]]))
    with footprint(context.device) as used:  # also warms up
        _forward(model, x, context)
    times = [_forward(model, x, context) for _ in range(REPEATS)]
    return 1000 * statistics.median(times), nbytes(tensors_of(model).values()) + used.peak


def _of_batch(model: TaskModel, data: PhaseData, context: RunContext) -> float:
    """Return samples per second of the second of two forwards of a batch."""
    model.eval()
    size = min(BATCH, len(data.loaders.first().samples))
    x = next(data.inputs([list(range(size))]))
    _forward(model, x, context)
    return size / max(_forward(model, x, context), 1e-9)


def _forward(model: TaskModel, x: Any, context: RunContext) -> float:
    """Return the seconds of one forward."""
    started = time.perf_counter()
    with torch.no_grad(), context.autocast():
        model.embed_batch(x).float().cpu()  # waits for a GPU
    return time.perf_counter() - started
