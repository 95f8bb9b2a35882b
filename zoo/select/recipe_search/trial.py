"""A candidate with its options: its jobs of several lengths, and what they are likely to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from zoo.engine.options.epochs import has_solvable_head, shortest_frozen_prefix
from zoo.engine.options.recipe import Recipe
from zoo.engine.options.recipes import default_recipe
from zoo.engine.preview.preview import preview_job
from zoo.engine.preview.report import Preview
from zoo.engine.train.job import Job, Tables, resolve_job
from zoo.errors import OptionError
from zoo.models.task_model import TaskModel
from zoo.select.recipe_search.candidates import candidates, check_auto, options_for
from zoo.select.recipe_search.halving import PROBE, lengths_of


class Trial:
    """One candidate on a model.

    Args:
        model: The model.
        recipe: The recipe of the candidate.
        options: The options of its runs.
        quiet: Show nothing.

    Attributes:
        name: Name of the candidate.
        recipe: Its recipe.
        tables: The data, to be set before anything is measured or run.

    Raises:
        OptionError: If the options do not suit the recipe.
    """

    def __init__(self, model: TaskModel, recipe: Recipe, options: Mapping[str, Any], *, quiet: bool) -> None:
        self.name, self.recipe = recipe.name, recipe
        self._model, self._options, self._quiet = model, options, quiet
        self.tables: Tables | None = None
        self.config = self.job().config

    def job(self, length: int | None = None) -> Job:
        """Return the job of so many epochs; None means the whole recipe."""
        options = dict(self._options) if length is None else {**self._options, "epochs": length}
        valid = False if self.tables is not None and self.tables[1] is None else None
        given: dict[str, Any] = {"recipe": self.recipe, "options": options, "objective": None, "quiet": self._quiet}
        asked = length is None and self.recipe == default_recipe(self._model.task)  # what others are told of, the search chose
        job = resolve_job(self._model, None, valid, **given, advises=asked)
        return replace(job, open_data=self._opened)

    def _opened(self) -> Tables:
        assert self.tables is not None, "the data are opened before the first run"
        return self.tables

    @cached_property
    def preview(self) -> Preview:
        """Memory and time of the whole recipe, estimated with two steps of each phase."""
        return preview_job(self.job())

    @property
    def memory(self) -> int:
        """Estimated peak in bytes."""
        return self.preview.memory

    @property
    def trained(self) -> int:
        """Parameters that train in the phase in which most of them do."""
        return max(sum(group.trainable for group in phase.groups) for phase in self.preview.phases)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Epochs of its runs, growing; a recipe whose phases have lengths of their own has one."""
        phases = self.preview.phases
        whole = sum(phase.epochs for phase in phases)
        if self.name == PROBE or any(phase.epochs or phase.steps for phase in self.recipe.phases):
            return (whole,)
        return lengths_of(whole, self._solved_epochs, len(self.recipe.phases))

    def seconds(self, length: int) -> float:
        """Return the estimated time of a run of so many epochs."""
        solved = sum(phase.seconds for phase in self.preview.phases if phase.schedule == "solved")
        share = (length - self._solved_epochs) / max(1, self.lengths[-1] - self._solved_epochs)
        return solved + (self.preview.seconds - solved) * share

    @property
    def _solved_epochs(self) -> int:
        return sum(phase.epochs for phase in self.preview.phases if phase.schedule == "solved")


def list_trials(model: TaskModel, options: Mapping[str, Any], *, quiet: bool) -> tuple[list[Trial], dict[str, str]]:
    """Return the candidates, the probe first and the default recipe last, and why others are left out.

    Args:
        model: The model.
        options: The given options, as for ``fit``.
        quiet: Show nothing.

    Raises:
        OptionError: If an option contradicts the choice, or does not apply to the probe or the default recipe.
    """
    check_auto(options)
    default = default_recipe(model.task)
    last = Trial(model, default, options_for(default, options), quiet=quiet)
    frozen = max(model.frozen, shortest_frozen_prefix(last.config, model.groups, model.frozen))
    if frozen == len(model.groups):
        raise OptionError(
            f"recipe 'auto' chooses what trains, and all {frozen} groups of {model.spec.name!r} are frozen; unfreeze some (freeze, "
            "model.freeze), or take recipe='linear-probe'"
        )
    probe, *others = candidates(default, len(model.groups), frozen)[:-1]
    trials, left_out = [_probe(model, probe, options, quiet=quiet)], {}
    for recipe in others:
        try:
            trials.append(Trial(model, recipe, options_for(recipe, options), quiet=quiet))
        except OptionError as error:
            left_out[recipe.name] = str(error)
    return [*trials, last], left_out


def _probe(model: TaskModel, recipe: Recipe, options: Mapping[str, Any], *, quiet: bool) -> Trial:
    solved = Trial(model, recipe, options_for(recipe, options, solved=True), quiet=quiet)
    config = solved.config
    if has_solvable_head(model, config) and config.cache and not config.shard and not callable(options.get("loss")):
        return solved
    return Trial(model, recipe, options_for(recipe, options), quiet=quiet)
