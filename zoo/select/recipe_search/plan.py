"""The plan of ``recipe="auto"``: candidates, rounds, time and memory of the search, without running it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from zoo.engine.loading.sources import open_for_fit
from zoo.engine.train.job import Tables
from zoo.errors import ZooError
from zoo.models.task_model import TaskModel
from zoo.select.log_once import each_message_once
from zoo.select.recipe_search.auto import check_arguments, open_with_hold_out
from zoo.select.recipe_search.halving import SHARES, usual_budget
from zoo.select.recipe_search.trial import Trial, list_trials


@dataclass(frozen=True)
class CandidatePlan:
    """One candidate of a search.

    Attributes:
        name: Name of the candidate.
        epochs: Epochs of its run in each round that it gets into, growing; of the probe one number.
        seconds: Estimated time of each of them.
        memory: Estimated peak in bytes.
        trained: Number of parameters that train at the most.
    """

    name: str
    epochs: tuple[int, ...]
    seconds: tuple[float, ...]
    memory: int
    trained: int


@dataclass(frozen=True)
class SearchPlan:
    """The plan of a search.

    Attributes:
        backbone: Name of the backbone.
        recipe: ``auto``.
        samples: Training samples.
        valid: Validation samples; without any the probe alone is fitted.
        budget: Seconds that the search takes at the most.
        given: Whether they were given; else they are those of the probe and of four runs of the default recipe, a minute at least.
        seconds: Estimated time of all rounds, if the candidates that take longest get into each; the search ends with the budget.
        measured: Seconds that the dry runs of this plan took, which the search takes as well.
        candidates: The probe, which comes first, and the others in the order in which they are tried.
        left_out: Why others are not tried, by their names.
    """

    backbone: str
    recipe: str
    samples: int
    valid: int
    budget: float
    given: bool
    seconds: float
    measured: float
    candidates: tuple[CandidatePlan, ...]
    left_out: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def plan_auto(
    model: TaskModel, train: Any, valid: Any = None, *, recipe: Any, budget: str | float | None = None, **options: Any
) -> SearchPlan:
    """Return what ``fit(recipe="auto")`` with the same arguments would try and take; the model is left as it is.

    Raises:
        OptionError: As ``fit_auto``.
        DataError: As ``fit``.
    """
    for name in ("out", "resume", "quiet"):  # without effect here
        options.pop(name, None)
    seconds, given = check_arguments(valid, budget, recipe, options)
    with each_message_once():
        config = list_trials(model, given, quiet=True)[0][-1].config
        opening = partial(open_with_hold_out, *(partial(open_for_fit, model, train, judge, config) for judge in (valid, False)))
        return plan_search(model, given, opening, seconds=seconds)


def plan_search(model: TaskModel, options: dict[str, Any], open_tables: Callable[[], Tables], *, seconds: float | None) -> SearchPlan:
    """Return what a search would try and take; see ``plan_auto``.

    Args:
        model: The model.
        options: The given options.
        open_tables: Opens the data.
        seconds: The budget, or None.
    """
    started = time.monotonic()
    with each_message_once():
        trials, left_out = list_trials(model, options, quiet=True)
        tables = open_tables()
        for trial in trials:
            trial.tables = tables
        probe, *tuned = trials
        found = [_candidate(probe)]
        if tables[1] is None:
            left_out |= dict.fromkeys((trial.name for trial in tuned), "no samples could be held out to judge it")
            tuned = []
        for trial in sorted(tuned, key=lambda trial: trial.recipe.trains != "all"):
            try:
                found.append(_candidate(trial))
            except Exception as error:  # of this candidate alone; the search leaves it out as well
                left_out[trial.name] = str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"
    taken = found[0].seconds[-1]
    of_default = next((one.seconds[-1] for one in found[1:] if one.name == trials[-1].name), 0.0)
    return SearchPlan(
        backbone=model.spec.name,
        recipe="auto",
        samples=len(tables[0]),
        valid=0 if tables[1] is None else len(tables[1]),
        budget=usual_budget(taken, of_default) if seconds is None else seconds,
        given=seconds is not None,
        seconds=taken + of_rounds([one.seconds for one in found[1:]]),
        measured=round(time.monotonic() - started, 3),
        candidates=tuple(found),
        left_out=left_out,
    )


def _candidate(trial: Trial) -> CandidatePlan:
    lengths = trial.lengths
    return CandidatePlan(trial.name, lengths, tuple(map(trial.seconds, lengths)), trial.memory, trial.trained)


def of_rounds(seconds: Sequence[Sequence[float]]) -> float:
    """Return the time of all rounds, if those that take longest get into each.

    Args:
        seconds: The times of the growing runs of each candidate.
    """
    total, alive = 0.0, len(seconds)
    for number in range(len(SHARES) if alive else 0):
        place = number if alive > 1 else len(SHARES) - 1
        times = sorted((one[min(place, len(one) - 1)] for one in seconds), reverse=True)
        total += sum(times[:alive])
        if alive == 1:  # its whole run, which a further round does not repeat
            break
        alive = math.ceil(alive / 2)
    return total
