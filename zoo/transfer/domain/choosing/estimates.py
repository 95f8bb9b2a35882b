"""Estimated times of the candidates: from dry runs before the first of them, and from the runs themselves afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from zoo.engine.options.epochs import shortest_frozen_prefix
from zoo.engine.preview.preview import preview_job
from zoo.engine.preview.report import PhasePlan, Preview
from zoo.engine.runtime.progress import in_time_units
from zoo.engine.train.job import Job
from zoo.errors import ZooError, count
from zoo.select.recipe_search.halving import Pace

LONG = 60.0  # seconds of all candidates, from which cheaper ways are named


class Estimates:
    """The time that candidates are likely to take.

    Two candidates are measured by two steps of each phase, as ``zoo plan`` does: the first, which reads the source alone, and one of
    those that read the target too, like which all others count. Where the whole backbone is frozen nothing is measured before the
    first run, as a dry run would take as long; then each candidate counts like the longest so far.

    Args:
        job: The job of all candidates, without the objective of one.
        job_of: Returns the job of a candidate.
        names: The candidates in their order.
    """

    def __init__(self, job: Job, job_of: Callable[[str], Job], names: Sequence[str]) -> None:
        self._job, self._names, self._pace, self._longest = job, names, Pace(), 0.0
        groups = job.model.groups
        self._trains = shortest_frozen_prefix(job.config, groups, job.model.frozen) < len(groups)
        self._seconds: dict[str, float] = {}
        self._plan = self._measure(job_of) if self._trains else None

    def _measure(self, job_of: Callable[[str], Job]) -> Preview | None:
        """Measure the first candidate and one of the others; return the plan of the first, or None if it cannot be made."""
        baseline, *others = self._names
        plan = _plan(job_of(baseline))
        if plan is None:  # its own run tells why
            return None
        found = (one for name in others if (one := _plan(job_of(name))) is not None)
        further = next(found, plan).seconds
        self._seconds = {baseline: plan.seconds} | dict.fromkeys(others, further)
        return plan

    def of(self, name: str) -> float:
        """Return the seconds that a candidate is likely to take; 0 while nothing is known."""
        return self._seconds[name] * self._pace.ratio if name in self._seconds else self._longest

    def add(self, name: str, seconds: float) -> None:
        """Count the run of a candidate."""
        self._longest = max(self._longest, seconds)
        if name in self._seconds:
            self._pace.add(self._seconds[name], seconds)

    def left(self, names: Iterable[str]) -> str:
        """Return the time of the candidates that are left, in words; empty where there are none."""
        seconds = sum(map(self.of, names))
        return f"; about {in_time_units(seconds)} for those that are left" if seconds else ""

    def lines(self, budget: float | None) -> list[str]:
        """Return what will be trained, and how long that is likely to take.

        Args:
            budget: Seconds that the candidates may take, or None.
        """
        recipe = self._job.config.recipe.name
        phases = "the head alone, on features that are computed once"
        if self._trains:
            phases = "; ".join(map(_phase, self._plan.phases)) if self._plan else "layer groups of the backbone and the head"
        lines = [f"{', '.join(self._names)} are trained one after the other by recipe {recipe!r}: {phases}"]
        if total := sum(self._seconds.values()):
            limit = "" if budget is None else f", and the budget is {in_time_units(budget)}"
            lines.append(f"all of them would take about {in_time_units(total)}, by two steps of each phase{limit}{_hint(total, budget)}")
        return lines


def _plan(job: Job) -> Preview | None:
    """Return the plan of a job; None if it cannot be run, such as with a frozen backbone, which its run tells."""
    try:
        return preview_job(job)
    except ZooError:
        return None


def _phase(phase: PhasePlan) -> str:
    groups = len(phase.groups) - 1
    what = "the head alone" if phase.frozen == groups else f"{groups - phase.frozen} of {groups} layer groups and the head"
    return f"{phase.name}, {count(phase.epochs, 'epoch')} of {what}"


def _hint(seconds: float, budget: float | None) -> str:
    if seconds < LONG:
        return ""
    within = "" if budget is not None else "; budget='5min' (--budget 5min) leaves out those for which there is no time"
    cheaper = "recipe='linear-probe' and head='mlp' (--recipe linear-probe --head mlp)"
    return f"{within}; {cheaper} train the head alone, in a fraction of the time"
