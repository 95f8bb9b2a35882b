"""A training job: the model, its resolved configuration and the function that opens its data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from zoo.data.splits.train_valid import warn_of_test_rows
from zoo.data.table import Table
from zoo.engine.loading.sources import open_for_fit
from zoo.engine.objective.make_objective import check_makes_objective
from zoo.engine.objective.objective import Objective
from zoo.engine.objective.supervised import Supervised
from zoo.engine.optim.optimizer import check_optimizer
from zoo.engine.options.config import Config, sized_for
from zoo.engine.options.epochs import shortest_frozen_prefix
from zoo.engine.options.model_selection import whole_up_to
from zoo.engine.options.option_checks import check_fits, check_own_parts, refit_obstacle
from zoo.engine.options.own_parts import OwnParts, take_own_parts
from zoo.engine.options.recipe import Recipe
from zoo.engine.options.recipes import FEW_SAMPLES, FEW_SHARE, RECIPES, REFIT_SAMPLES, default_recipe
from zoo.engine.options.resolve import resolve
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task

Tables: TypeAlias = "tuple[Table, Table | None]"
MakeObjective: TypeAlias = Callable[[Supervised], Objective]
log = logging.getLogger("zoo")


@dataclass(frozen=True)
class Job:
    """A run or a plan, resolved and checked once.

    Attributes:
        model: The model.
        config: The resolved configuration.
        open_data: Returns the training and the validation data; called once.
        own: The user's own parts.
        objective: Makes the objective, or None.
        quiet: Show nothing.
        begun: Whether it goes on in the folder of a run that has begun.
        advises: Whether options that do not suit the recipe are told; a search, which chose the recipe, leaves that out.
    """

    model: TaskModel
    config: Config
    open_data: Callable[[], Tables]
    own: OwnParts
    objective: MakeObjective | None
    quiet: bool
    begun: bool = False
    advises: bool = True

    def sized(self, tables: Tables) -> Job:
        """Return the job with the options that depend on the number of samples, where neither an option nor the recipe decides them.

        These are the batch size, ``refit_bias`` and, with at most ``FEW_SAMPLES`` and no validation data, which would judge tuning,
        ``wise_ft``.
        """
        config, samples = self.config, len(tables[0])
        if tables[1] is None:
            warn_of_test_rows(tables[0].splits, tables[0].source)
        if samples <= FEW_SAMPLES and tables[1] is None and self._may_mix():
            log.info(
                "%d training samples are few and nothing is held out, so the result is a mixture: %g of the tuned values and %g of those "
                "before tuning; wise_ft=1 takes the tuned ones",
                samples,
                FEW_SHARE,
                1 - FEW_SHARE,
            )
            config = config.model_copy(update={"wise_ft": FEW_SHARE})
        elif tables[1] is not None and tables[1].held_out and samples + len(tables[1]) <= FEW_SAMPLES and self._may_mix():
            line = "%d of %d samples are held out, too few to judge tuning by; valid=False (--no-valid) trains on all, more gently"
            log.info(line, len(tables[1]), samples + len(tables[1]))
        if config.refit_bias is None:
            refits = samples <= REFIT_SAMPLES and config.recipe == RECIPES["layer-decay"] and self._tunes_pretrained()
            config = config.model_copy(update={"refit_bias": refits and not refit_obstacle(self.model, config)})
        # Decided now: a record that has ``wise_ft`` need not say who gave it, and a run goes on with either.
        return replace(self, config=sized_for(config.model_copy(update={"mix_few": False}), samples))

    def _may_mix(self) -> bool:
        """Return whether the values of few samples may be mixed: nobody said how much, and tuning is of the kind that was measured."""
        return self.config.mix_few and self._tunes_pretrained()

    def _tunes_pretrained(self) -> bool:
        """Return whether tuning of everything follows on pretrained values, for a task in which the rules for few samples were measured."""
        config, model = self.config, self.model
        tunes = config.epochs != 1 and shortest_frozen_prefix(config, model.groups, model.frozen) < len(model.groups)
        usual = self.objective is None and config.trains == "all" and not config.shard
        return find_task(model.task).exclusive and model.pretrained and tunes and usual


def make_job(
    model: TaskModel,
    config: Config,
    open_data: Callable[[], Tables],
    *,
    validated: bool,
    own: OwnParts | None = None,
    objective: MakeObjective | None = None,
    quiet: bool = False,
    advises: bool = True,
) -> Job:
    """Return the job of a model and a configuration that was resolved for it.

    Args:
        model: The model.
        config: The resolved configuration.
        open_data: See ``Job``.
        validated: Whether there will be validation data.
        own: The user's own parts.
        objective: Makes the objective, or None.
        quiet: Show nothing.
        advises: See ``Job``.

    Raises:
        OptionError: If an option does not apply to the model, its task, the own parts or the objective.
    """
    own = own or OwnParts()
    check_own_parts(model, config, own)
    check_fits(model, config, validated=validated, advises=advises)
    if refuse := getattr(objective, "refuse", None):
        refuse(model, config)
    return Job(model, config, open_data, own, objective, quiet, advises=advises)


def resolve_job(
    model: TaskModel,
    train: Any,
    valid: Any,
    *,
    recipe: str | Recipe | None,
    options: dict[str, Any],
    objective: MakeObjective | None,
    quiet: bool = False,
    divided: bool = True,
    advises: bool = True,
) -> Job:
    """Return the job of the arguments of ``fit``.

    Args:
        model: The model.
        train: Any source with labels.
        valid: Another source, None or False.
        recipe: A name, a recipe, or None for the one of the objective, else of the task.
        options: By name; the user's own parts are removed in place.
        objective: Makes the objective, or None.
        quiet: Show nothing.
        divided: Hold samples out where ``valid`` is None, however few there are; else see ``whole_up_to``.
        advises: See ``Job``.

    Raises:
        OptionError: For unknown options, an objective that is none, values out of range and options that do not apply to the model's task.
    """
    check_makes_objective(objective)
    faults: list[str] = []
    metrics = options.get("metrics")
    own = take_own_parts(options, find_task(model.task), faults, outputs=model.num_classes)
    config = resolve(
        recipe or getattr(objective, "recipe", None) or default_recipe(model.task),
        options,
        task=model.task,
        check_optimizer=check_optimizer,
        metrics=[str(name) for name in (metrics if isinstance(metrics, Mapping) else own.metrics)],
        faults=faults,
    )
    judged = divided or objective is not None or bool(own.metrics) or own.on_epoch is not None
    few = whole_up_to(config, find_task(model.task), judged=judged)
    opening = partial(open_for_fit, model, train, valid, config, whole_up_to=few)
    return make_job(model, config, opening, validated=valid is not False, own=own, objective=objective, quiet=quiet, advises=advises)
