"""Messages of a run: its first line, stops, and errors that end it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.data.open import Table
from zoo.engine.optim.nonfinite import NonFiniteError
from zoo.engine.options.config import Config
from zoo.engine.rundir.checkpoint import written
from zoo.engine.runtime.signals import StopFlag
from zoo.errors import DiskFullError, InterruptedRunError, TrainingError, examples
from zoo.models.task_model import TaskModel


def headline(
    model: TaskModel, config: Config, samples: tuple[int, int], accelerator: Any, folder: Path, resumed_at: str, *, processes: int = 1
) -> str:
    """Return the first line of a run: model, licence of its weights, recipe, numbers of samples, device, folder."""
    backbone = f"{model.spec.name} (weights: {model.spec.license})" if model.pretrained else model.spec.name
    data = f"{samples[0]} training samples" + (f", {samples[1]} for validation" if samples[1] else "")
    precision = "" if accelerator.mixed_precision == "no" else f", {accelerator.mixed_precision}"
    went_on = f"; going on at {resumed_at}" if resumed_at else ""
    where = str(accelerator.device) if processes == 1 else f"{processes} processes on {accelerator.device.type}"
    return f"{backbone}, {config.recipe.name}: {data}, {where}{precision}, into {folder}{went_on}"


def interrupted(stop: StopFlag, folder: Path, where: str) -> InterruptedRunError:
    """Return the error that ends a run after a signal, with the exit code that shells expect."""
    error = InterruptedRunError(
        f"stopped by {stop.name} in {where}; a checkpoint is in {str(folder / 'checkpoint')!r}. "
        f"Go on with resume=True (--resume) and out={str(folder)!r}"
    )
    error.exit_code = stop.exit_code
    return error


def too_late(stop: StopFlag, folder: Path) -> InterruptedRunError:
    """Return the error for a signal that came when there was nothing left to stop."""
    error = InterruptedRunError(f"{stop.name} came after the last step: the run is complete, its model is saved in {str(folder)!r}")
    error.exit_code = stop.exit_code
    return error


def not_finite(
    error: NonFiniteError, where: str, indices: Sequence[int], table: Table, *, lr: float, config: Config, half: bool
) -> TrainingError:
    """Return the error for a loss or gradient that is not finite, naming the samples of its step.

    Args:
        error: What was found.
        where: In which step.
        indices: The samples of the step.
        table: The training data.
        lr: The learning rate that may be to blame; 0 where nothing had trained.
        config: The run's configuration, of which what is set already is not proposed.
        half: Whether the run computes in bf16.
    """
    names = examples([f"{index} ({table.name_of(index)})" for index in indices])
    remedies = [f"lower lr (now {lr:g})"] if lr else ["look at the values of these samples and at the weights, for nothing had trained yet"]
    remedies += ["give clip_grad=1.0"] if lr and config.clip_grad is None else []
    remedies += ["give precision='fp32'"] if half else []
    told = " or ".join(remedies)
    return TrainingError(
        f"the {error.what} is not finite in {where}, samples {names}; no parameter was changed by it. {told[0].upper()}{told[1:]}"
    )


def no_checkpoint(error: OSError, folder: Path) -> TrainingError:
    """Return the error for a checkpoint that cannot be written, such as on a full disk."""
    cause = str(error) if isinstance(error, DiskFullError) else f"{str(folder)!r} cannot be written: {error.strerror or error}"
    intact = "Earlier ones are intact: go on with resume=True (--resume)"
    remedy = intact if written(folder) else "There is no earlier one: start anew after that"
    return TrainingError(f"no checkpoint could be written: {cause}. {remedy}")
