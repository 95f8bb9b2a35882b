"""The arguments of a search, checked before any data are read. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zoo.engine.runtime.launch_env import launched
from zoo.errors import HoldOutError, OptionError, fault_list, refusals
from zoo.select.recipe_search.halving import seconds_of

if TYPE_CHECKING:
    from zoo.engine.train.job import Job


def begun_search(
    caller: str, model: Any, options: Mapping[str, Any], *, recipe: Any, valid: Any, trials: int | None, budget: Any, quiet: bool
) -> tuple[dict[str, Any], Job]:
    """Return the options that were given, and the job that they make, before any data are read.

    Raises:
        OptionError: If what was given is no model, or naming all arguments that are wrong.
    """
    from zoo.engine.train.job import resolve_job
    from zoo.models.task_model import TaskModel

    if not isinstance(model, TaskModel):
        raise OptionError(f"{caller} takes a model, and got {type(model).__name__}; give zoo.get(name).adapt(num_classes)")
    given = {name: value for name, value in options.items() if value is not None}
    check_arguments(given, recipe=recipe, valid=valid, trials=trials, budget=budget)
    return given, resolve_job(model, None, None, recipe=recipe, options=dict(given), objective=None, quiet=quiet)


def check_arguments(options: Mapping[str, Any], *, recipe: Any, valid: Any, trials: int | None, budget: Any) -> None:
    """Check the arguments of a search.

    Raises:
        OptionError: Naming all that are wrong.
    """
    faults = ["valid=False: trials are judged by held-out samples; give some, or leave it out"] if valid is False else []
    if recipe == "auto":
        faults.append("recipe='auto': the recipe is searched; leave it out, or name one")
    if trials is not None and (not isinstance(trials, int) or isinstance(trials, bool) or trials < 1):
        faults.append(f"trials is {trials!r}; it must be a whole number, 1 or more")
    reasons = {
        "objective": "what is minimised is the same in all trials only for labelled data",
        "log_with": "a tracker follows one run, and there is one per trial",
        "shard": "it needs several processes; --workers runs several trials at once",
    }
    faults += [f"{name}: {why}" for name, why in reasons.items() if options.get(name)]
    if launched() > 1:
        faults.append("several processes of one run: trials run in one; --workers runs several at once")
    faults += refusals(seconds_of, budget)
    if faults:
        raise OptionError(fault_list("a search cannot run with these:", faults))


@contextmanager
def hold_out_remedy() -> Iterator[None]:
    """Name the remedy of a search where no samples can be held out: it cannot train on everything, as a run can.

    Raises:
        HoldOutError: Instead of the one that was raised.
    """
    try:
        yield
    except HoldOutError as error:
        remedy = "trials are judged by held-out samples: give a validation set (valid, --valid), or more samples"
        raise HoldOutError(error.fault, remedy) from error
