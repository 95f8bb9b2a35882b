"""The first line of a run, and the errors for signals and for losses that are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.data.open import Table
from zoo.engine.loading.order import Indices
from zoo.engine.optim.nonfinite import NonFiniteError
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import Epoch
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.runtime.signals import StopFlag
from zoo.engine.train.objective import Objective
from zoo.engine.train.run_parts import RunParts
from zoo.errors import InterruptedRunError, TrainingError, examples


def headline(objective: Objective, context: RunContext, resumed_at: str) -> str:
    """Return the first line of a run: model, licence of its weights, recipe, numbers of samples, device, folder."""
    model, accelerator, processes = objective.model, context.accelerator, context.ranks.count
    backbone = f"{model.spec.name} (weights: {model.spec.license})" if model.pretrained else model.spec.name
    samples, validated = sum(len(source.table) for source in objective.sources.values()), sum(map(len, objective.valid.values()))
    data = f"{samples} training samples" + (f", {validated} for validation" if validated else "")
    precision = "" if accelerator.mixed_precision == "no" else f", {accelerator.mixed_precision}"
    went_on = f"; going on at {resumed_at}" if resumed_at else ""
    where = str(accelerator.device) if processes == 1 else f"{processes} processes on {accelerator.device.type}"
    return f"{backbone}, {context.config.recipe.name}: {data}, {where}{precision}, into {context.folder}{went_on}"


def interrupted(stop: StopFlag, folder: Path, where: str) -> InterruptedRunError:
    """Return the error that ends a run after a signal, with the exit code that shells expect."""
    error = InterruptedRunError(
        f"stopped by {stop.name} in {where}; a checkpoint is in {str(folder / 'checkpoint')!r}. "
        f"Go on with resume=True (--resume) and out={str(folder)!r}"
    )
    error.exit_code = stop.exit_code
    return error


def too_late(stop: StopFlag, folder: Path) -> InterruptedRunError:
    """Return the error for a signal that came after the last step."""
    error = InterruptedRunError(f"{stop.name} came after the last step: the run is complete, its model is saved in {str(folder)!r}")
    error.exit_code = stop.exit_code
    return error


def not_finite(
    error: NonFiniteError, where: str, indices: Sequence[int], table: Table, *, lr: float, config: Config, half: bool
) -> TrainingError:
    """Return the error for a loss or gradient that is not finite, naming the samples of its step.

    Args:
        error: The loss or gradient.
        where: Name of the step.
        indices: The samples of the step.
        table: The training data.
        lr: Current learning rate; 0 before the first step.
        config: The configuration, so that no remedy is proposed that is set already.
        half: Whether the run computes in bf16.
    """
    names = examples([f"{index} ({table.name_of(index)})" for index in indices])
    remedies = [f"lower lr (now {lr:g})"] if lr else ["look at the values of these samples and at the weights, for nothing had trained yet"]
    remedies += ["give clip_grad=1.0"] if lr and config.clip_grad is None else []
    remedies += ["give precision='fp32'"] if half else []
    remedy = " or ".join(remedies)
    return TrainingError(
        f"the {error.what} is not finite in {where}, samples {names}; no parameter was changed by it. {remedy[0].upper()}{remedy[1:]}"
    )


@dataclass(frozen=True)
class StepErrors:
    """Makes the error for a loss or gradient of a run that is not finite.

    Attributes:
        parts: The run.
        context: The conditions of the run.
    """

    parts: RunParts
    context: RunContext

    def __call__(self, error: NonFiniteError, epoch: Epoch, order: Sequence[Sequence[Indices]]) -> TrainingError:
        """Return the error for one step.

        Args:
            error: The loss or gradient, with the number of the step.
            epoch: The epoch of the step.
            order: The samples of each batch of each step of the epoch.
        """
        parts = self.parts
        indices = [index for batch in order[error.step] for index in batch]
        where = f"epoch {parts.state.epoch + 1} (phase {epoch.phase.name!r}), step {error.step + 1} of {epoch.steps}"
        lr = parts.rates.peak(epoch) if parts.optimizer.param_groups[-1]["lr"] else 0.0
        table = next(iter(parts.objective.sources.values())).table
        return not_finite(error, where, indices, table, lr=lr, config=self.context.config, half=self.context.half)
