"""The stateful objects of a run, stored in its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.engine.objective.objective import Identity, Objective
from zoo.engine.optim.lr_schedule import Rates
from zoo.engine.optim.optimizer import build_optimizer
from zoo.engine.optim.run_averages import Averages
from zoo.engine.options.epochs import Epoch
from zoo.engine.options.model_selection import Best
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.rundir.stateful import Stateful
from zoo.engine.train.train_state import ModelValues, OptimizerState, RandomStates, Snapshot, TrainState, frozen_names
from zoo.tuning.efficient.step_hooks import call_around_steps, step_hooks


class RunParts:
    """The stateful objects of a run.

    Args:
        objective: What is minimised; its modules are on the device.
        context: The conditions of the run.
        epochs: The epochs of all phases.

    Attributes:
        objective: The objective.
        epochs: The epochs of all phases.
        state: Position in them, and the history so far.
        optimizer: The optimizer.
        rates: The learning rates.
        averages: Averages of the values along the run.
        best: The best epoch so far.
        best_values: Values of the best epoch.
        start_values: Values before the last phase, where WiSE-FT mixes them with the result.
        step_hooks: What the kind of the model's update does around each optimizer step, by name; mostly nothing.
    """

    def __init__(self, objective: Objective, context: RunContext, epochs: list[Epoch]) -> None:
        self.objective, self.epochs, self._ranks = objective, epochs, context.ranks
        extra = None if objective.module is objective.model else objective.module
        self.optimizer = build_optimizer(objective.model, context.config, context.device, extra)
        self.averages = Averages(objective.model, context.config, epochs)
        self.state, self.best = TrainState(context.ranks), Best(objective.monitor, bool(objective.lower))
        self.best_values, self.start_values = Snapshot(), Snapshot()
        self.rates = Rates(self.optimizer, context.config)
        model = objective.model
        self.step_hooks = step_hooks(model, sum(epoch.steps for epoch in epochs if epoch.frozen < len(model.groups)))
        for hook in self.step_hooks.values():
            call_around_steps(self.optimizer, hook)

    def by_name(self) -> Mapping[str, Stateful]:
        """Return the objects by their name in a checkpoint, in the order in which they are loaded; random states come last."""
        return {
            **self.objective.parts(),
            "identity": Identity(self.objective),
            "objective": self.objective,
            **self.averages.parts,
            **self.step_hooks,
            "model": ModelValues(self.objective.module, self._ranks),
            "optimizer": OptimizerState(self.optimizer, self._ranks),
            "run": self.state,
            "best": self.best,
            "rates": self.rates,
            "kept": self.best_values,
            "start": self.start_values,
            "random": RandomStates(self._ranks, self.state),
        }

    @property
    def position(self) -> str:
        """Epoch and step of the run, for messages."""
        state = self.state
        if state.epoch == len(self.epochs):
            return "the end of the last epoch, with nothing left to train"
        return f"epoch {state.epoch + 1}, after {state.step} of {self.epochs[state.epoch].steps} steps"

    def copy_best_values(self, phase: int) -> None:
        """Copy the values of the objective's module; those frozen in this phase only once."""
        model, module = self.objective.model, self.objective.module
        prefix = next(name for name, part in module.named_modules() if part is model)
        names = frozenset(f"{prefix}.{name}" if prefix else name for name in frozen_names(model))
        self.best_values.take(module, names, phase)
