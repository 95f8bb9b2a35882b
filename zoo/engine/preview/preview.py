"""A dry run of fit: groups, phases, and the memory and time they are likely to take."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.declare import Text
from zoo.engine.cache.tensor_store import IN_MEMORY
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.distributed.sharding import check_shardable
from zoo.engine.loading.loader import default_workers
from zoo.engine.loading.sources import check_tables, inputs_in_use
from zoo.engine.objective.make_objective import make_objective
from zoo.engine.objective.objective import Objective, run_cache_obstacle
from zoo.engine.objective.supervised import Supervised
from zoo.engine.options.epochs import Epoch
from zoo.engine.options.recipe import Recipe
from zoo.engine.preview.dry_run import Dry, DryRun
from zoo.engine.preview.report import GroupPlan, PhasePlan, Preview
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.runtime.device import make_accelerator
from zoo.engine.runtime.memory_profile import footprint, nbytes
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.rollback import as_before, tensors_of
from zoo.engine.runtime.signals import StopFlag
from zoo.engine.train.job import Job, Tables, resolve_job
from zoo.engine.train.model_setup import active, further_modules, prepared
from zoo.engine.train.trainer import Training
from zoo.models.task_model import TaskModel
from zoo.tuning.statistics import keeps_statistics


def preview(
    model: TaskModel, train: Any, valid: Any = None, *, recipe: str | Recipe | None = None, objective: Any = None, **options: Any
) -> Preview:
    """Return what ``fit`` would do with the same arguments, without doing it.

    Two optimizer steps of each phase are taken on real batches, the largest, at learning rate zero. Afterwards the model's
    parameters, buffers, gradients and modes and the random state are what they were, bit for bit. Nothing is written. Memory
    is what these steps allocated, plus the optimizer's state, averages, stored outputs of a frozen prefix and the values of the
    best epoch. Time is theirs, times the number of steps, without saving, compilation and the trials of ``lr="auto"`` and
    ``batch_size="auto"``.

    Args:
        model: The model.
        train: As for ``fit``.
        valid: As for ``fit``.
        recipe: As for ``fit``.
        objective: As for ``fit``.
        **options: As for ``fit``; ``out``, ``resume`` and ``quiet`` have no effect.

    Raises:
        OptionError: For unknown options, values out of range and options that the model's task has no use for.
        DataError: If the data do not fit the model.
        TrainingError: If a loss or gradient is not finite, or one sample alone does not fit into memory.
    """
    for name in ("out", "resume", "quiet"):  # options of fit without effect here
        options.pop(name, None)
    return preview_job(resolve_job(model, train, valid, recipe=recipe, options=options, objective=objective, divided=False))


def preview_job(job: Job) -> Preview:
    """Tell what a run would do; see ``preview``."""
    model, config = job.model, job.config
    check_shardable(model, config, Ranks(), supervised=job.objective is None)
    with torch.inference_mode(False), torch.enable_grad(), untouched(model), tempfile.TemporaryDirectory(prefix="zoo-plan-") as folder:
        tables = check_tables(model, job.open_data(), config)
        return _Planned(job.sized(tables), tables, Path(folder)).preview()


class _Planned:
    """Measures one job."""

    def __init__(self, job: Job, tables: Tables, folder: Path) -> None:
        self._model, self._config, self._objective, self._own = job.model, job.config, job.objective, job.own
        self._tables, self._folder = tables, folder
        self._module: nn.Module = job.model
        self._valid = 0 if tables[1] is None else len(tables[1])
        self._judged = self._beside = self._valid
        # No workers, so that loading and computing are measured separately; compiling would take minutes.
        self._dry_config = self._config.model_copy(update={"workers": 0, "compile": False})
        self._accelerator = make_accelerator(self._config.device, self._config.precision)
        self._device: torch.device = self._accelerator.device

    def preview(self) -> Preview:
        """Measure all phases."""
        model, tables, accelerator = self._model, self._tables, self._accelerator
        model.inputs, model.labels = inputs_in_use(model, self._config, tables[0]), model.labels or tables[0].classes or None
        gc.collect()  # earlier garbage must not be freed during a measurement
        with prepared(model, self._dry_config, accelerator) as (layout, penalties):
            supervised = Supervised(model, *tables, self._dry_config, self._device, penalties, self._own)
            objective = make_objective(self._objective, supervised, self._dry_config)
            self._count(objective)
            progress = Progress(quiet=True, monitor=objective.monitor)
            context = RunContext(self._dry_config, accelerator, Ranks(), self._folder, layout, progress, StopFlag(), self._own)
            untouched_too = nullcontext() if objective.module is model else as_before(objective.module)
            with untouched_too, further_modules(objective, self._device), active(objective, supervised):
                self._module = objective.module
                beside = [tensor for module in objective.frozen.values() for tensor in tensors_of(module).values()]
                started = [tensor for part in objective.parts().values() for tensor in part.state_dict().values()]
                there = nbytes([*tensors_of(objective.module).values(), *started, *beside])
                with footprint(self._device) as built:
                    training = Training(objective, context)
                phases = self._phases(training, there + built.held)
        return self._summary(phases)

    def _count(self, objective: Objective) -> None:
        """Count the samples of each validation, and those that the frozen prefix reads beside the training data, each table once."""
        first, *others = (source.table for source in objective.sources.values())
        self._judged = sum(map(len, objective.valid.values()))
        self._beside = sum(map(len, {id(table): table for table in (*others, *objective.valid.values()) if table is not first}.values()))

    def _phases(self, training: Training, held: int) -> list[PhasePlan]:
        phases = []
        factors = _factors(training)
        dry_run = DryRun(training, self._valid, obstacle=run_cache_obstacle(training.objective, self._config))
        for epoch in (epoch for epoch in training.parts.epochs if epoch.done == 0):
            dry = dry_run.phase(epoch)
            memory = held + self._copies(epoch) + self._peak(dry)
            phases.append(self._phase(training, epoch, dry, memory, self._seconds(dry_run, epoch, dry), factors))
            held += max(0, dry.steps.held)  # the optimizer's state stays for later phases
        return phases

    def _phase(self, training: Training, epoch: Epoch, dry: Dry, memory: int, seconds: float, factors: Mapping[str, float]) -> PhasePlan:
        lr: float | str = 0.0 if epoch.solved else "auto" if self._config.lr == "auto" else training.parts.rates.peak(epoch)
        largest = max(dry.caches, default=0)
        return PhasePlan(
            name=epoch.phase.name,
            epochs=epoch.of,
            steps=epoch.total,
            frozen=epoch.frozen,
            augment=epoch.augment,
            schedule="solved" if epoch.solved else training.parts.rates.schedule(epoch),
            lr=lr,
            cached="" if not dry.caches else "features" if epoch.pooled else "activations",
            reason=dry.reason,
            cache=sum(dry.caches),
            cache_place="" if not dry.caches else "disk" if largest > IN_MEMORY and not epoch.pooled else "memory",
            micro_batch=dry.micro_batch,
            memory=memory,
            seconds=seconds,
            groups=tuple(self._groups(training, epoch, lr, factors)),
        )

    def _groups(self, training: Training, epoch: Epoch, lr: float | str, factors: Mapping[str, float]) -> Iterator[GroupPlan]:
        model = self._model
        model.freeze(epoch.frozen).train()
        for name, factor in factors.items():
            parts = [part for part in training.parts.optimizer.param_groups if part["group"] == name]
            parameters = [parameter for part in parts for parameter in part["params"]]
            trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
            yield GroupPlan(
                name=name,
                parameters=sum(parameter.numel() for parameter in parameters),
                trainable=trainable,
                lr=0.0 if not trainable else lr if isinstance(lr, str) else lr * factor,
                factor=factor,
                weight_decay=max(float(part["weight_decay"]) for part in parts),
                mode=self._mode(name, epoch),
            )

    def _mode(self, name: str, epoch: Epoch) -> str:
        model = self._model
        group = next((group for group in model.groups if group.name == name), None)
        if group is None:
            return "solved" if epoch.solved else "trains"
        if group.index < epoch.frozen:
            return "frozen, eval"
        trained = any(parameter.requires_grad for _, parameter in group.named_parameters())
        what = {"all": "trains", "bias": "biases train"}.get(model.trains, f"{model.trains} trains") if trained else "no gradient"
        norms = [part for _, module in group.modules() for part in module.modules() if keeps_statistics(part)]
        held = any(not norm.training for norm in norms)
        return f"{what}, statistics held" if held else what

    def _peak(self, dry: Dry) -> int:
        """Return the peak memory of a phase beyond that of the run."""
        cached = 0 if self._device.type == "cuda" else dry.in_memory
        return cached + max(dry.prefix.peak, dry.steps.peak, dry.passes.peak if self._valid else 0)

    def _copies(self, epoch: Epoch) -> int:
        """Return the bytes of copies of the model on the CPU: the best epoch, and the start of the last phase."""
        if self._device.type != "cpu":
            return 0
        best = self._valid > 0 and (epoch.index > 0 or epoch.of > 1)
        start = self._config.wise_ft < 1
        return (best + start) * nbytes(tensors_of(self._module).values())

    def _seconds(self, run: DryRun, epoch: Epoch, dry: Dry) -> float:
        images = 0 if isinstance(self._model.inputs, Text) else len(self._tables[0])
        workers = default_workers(self._device, images) if self._config.workers is None else self._config.workers

        def beside(loading: float, both: float) -> float:
            """Return the time of loading and computing, which overlap with loader processes."""
            return max(loading / workers, both - loading) if workers else both

        once = beside(dry.loading, dry.prefix_seconds) * (len(run.lengths) * self._config.views + self._beside) if dry.caches else 0.0
        scale = 1.0 if epoch.pooled else run.scale
        step = beside(dry.step_loading, dry.step_loading + dry.step_seconds * scale)
        loading = 0.0 if dry.caches else dry.loading
        each_pass = beside(loading, dry.pass_seconds) * self._judged * run.pass_scale
        return once * run.pass_scale + step * epoch.total + each_pass * epoch.of

    def _summary(self, phases: list[PhasePlan]) -> Preview:
        config, mixed = self._config, self._accelerator.mixed_precision
        return Preview(
            backbone=self._model.spec.name,
            recipe=config.recipe.name,
            task=self._model.task,
            samples=len(self._tables[0]),
            valid=self._valid,
            batch_size=config.batch_size or config.samples,
            lr=config.lr,
            wise_ft=config.wise_ft,
            refit_bias=bool(config.refit_bias) and any(phase.augment for phase in phases),
            device=str(self._device),
            precision="fp32" if mixed == "no" else mixed,
            memory=max(phase.memory for phase in phases),
            seconds=sum(phase.seconds for phase in phases),
            phases=tuple(phases),
        )


@contextmanager
def untouched(model: TaskModel) -> Iterator[None]:
    """Restore a model at the end, in place: values, gradients, modes, ``requires_grad``, inputs and class names.

    The random state is restored too.
    """
    inputs, labels = model.inputs, model.labels
    with as_before(model):  # with the random state: importing a library may draw from it
        try:
            yield
        finally:
            model.inputs, model.labels = inputs, labels


def _factors(training: Training) -> dict[str, float]:
    """Return the learning rate of each group relative to the head's, input side first."""
    rates = {part["group"]: float(part["lr"]) for part in training.parts.optimizer.param_groups}
    return {name: lr / rates["head"] if rates["head"] else 1.0 for name, lr in rates.items()}
