"""Successive halving (Jamieson & Talwalkar 2016) within a budget of time, and the choice at its end. No torch here."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zoo.engine.inference.confidence_intervals import interval_of
from zoo.errors import OptionError
from zoo.util.numbers import nan_for_none, score_text, without_nan

SHARES = (0.25, 0.5, 1.0)  # of the epochs of tuning, one per round
_UNITS = (
    {"": 1.0}
    | dict.fromkeys(("s", "sec", "secs"), 1.0)
    | dict.fromkeys(("m", "min", "mins"), 60.0)
    | dict.fromkeys(("h", "hour", "hours"), 3600.0)
)
PROBE = "probe"
DEFAULT_RUNS = 4  # of the default recipe, that the candidates may take without a budget
LEAST_BUDGET = 60.0  # seconds, without a budget
ONE_ERROR = 0.683  # share of draws within one standard error; see docs/decisions/recipes-are-chosen-by-halving.md


@dataclass(frozen=True)
class Result:
    """What one candidate reached.

    Attributes:
        name: Name of the candidate.
        recipe: Name of its recipe.
        epochs: Epochs of the run that scored; of several runs the best counts.
        whole: Whether that run had all the epochs of the recipe.
        score: The monitored metric on the held-out samples, NaN where it is undefined.
        low: Lower end of its 95 % interval, or None where the metric has none.
        high: Upper end.
        seconds: Time of that run.
        memory: Estimated peak in bytes.
        trained: Number of parameters that train at the most.
        folder: Its folder, relative to that of the choice.
        thresholds: Probability above which each label is predicted, one per class, or None.
        draws: The metric in each draw of the bootstrap, NaN where it is undefined, the same draws for all candidates;
            None where the metric has no interval.
        tuned: The best score of the epochs of tuning, where ``score`` may be that of the head before them; NaN where there are none.
    """

    name: str
    recipe: str
    epochs: int
    whole: bool
    score: float
    low: float | None
    high: float | None
    seconds: float
    memory: int
    trained: int
    folder: str
    thresholds: tuple[float, ...] | None = None
    draws: tuple[float, ...] | None = None
    tuned: float = math.nan


@dataclass
class Pace:
    """The time that runs took over their estimates, by which later estimates are corrected.

    Attributes:
        estimated: Seconds that were estimated for the runs so far.
        taken: Seconds that they took.
    """

    estimated: float = 0.0
    taken: float = 0.0

    def add(self, estimated: float, taken: float) -> None:
        """Count a run that has ended."""
        self.estimated += estimated
        self.taken += taken

    @property
    def ratio(self) -> float:
        """The correction, once runs of more than a second were estimated; 1 before."""
        return self.taken / self.estimated if self.estimated > 1.0 else 1.0


@dataclass
class Overheads:
    """Seconds beside the training of candidates, the longest so far of each kind.

    Attributes:
        dry_run: Of the steps by which a candidate's time is estimated.
        judging: Of the evaluation of a run with its draws.
        end: Of what is done with the chosen run at the end.
    """

    dry_run: float = 0.0
    judging: float = 0.0
    end: float = 0.0

    @contextmanager
    def measured(self, kind: str) -> Iterator[None]:
        """Measure the time of the block as one of a kind."""
        started = time.monotonic()
        yield
        setattr(self, kind, max(getattr(self, kind), time.monotonic() - started))


@dataclass(frozen=True)
class Choice:
    """The chosen candidate and the reason in one line."""

    result: Result
    reason: str


def seconds_of(budget: Any) -> float | None:
    """Return the seconds of a budget: ``90``, ``"90s"``, ``"10min"``, ``"1.5h"``; None for None.

    Raises:
        OptionError: If it is not a duration above 0.
    """
    if budget is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*", budget.lower()) if isinstance(budget, str) else None
    if found and found[2] in _UNITS:
        seconds = float(found[1]) * _UNITS[found[2]]
    else:
        seconds = float(budget) if isinstance(budget, int | float) and not isinstance(budget, bool) else math.nan
    if not 0 < seconds < math.inf:
        raise OptionError(
            f"budget (--budget) is {budget!r}; it must be a duration above 0, such as '90s', '10min', '1h', or a number of seconds"
        )
    return seconds


def usual_budget(before: float, default: float) -> float:
    """Return the seconds of a search without a budget.

    Args:
        before: Those of the probe and of what is beside the runs.
        default: Estimated ones of the default recipe.
    """
    return max(LEAST_BUDGET, before + DEFAULT_RUNS * default)


def lengths_of(epochs: int, fixed: int, least: int = 1) -> tuple[int, ...]:
    """Return the epochs of each round, growing.

    Args:
        epochs: Epochs of the whole run.
        fixed: Those of them that every run has, such as a solved head.
        least: Shortest run, such as one epoch for each phase.
    """
    tuning = max(1, epochs - fixed)
    found = [min(epochs, max(least, fixed + max(1, round(tuning * share)))) for share in SHARES]
    return tuple(sorted({*found}))


def affordable(lengths: Sequence[int], wanted: int, seconds: Callable[[int], float], left: float) -> int | None:
    """Return the longest length, at most ``wanted``, that takes no more than the time that is left; None if none does.

    Args:
        lengths: Epochs, growing.
        wanted: Longest length.
        seconds: Estimated time of a length.
        left: Seconds that are left.
    """
    return next((length for length in reversed(lengths) if length <= wanted and seconds(length) <= left), None)


def survivors(results: Sequence[Result], *, lower: bool) -> list[Result]:
    """Return the better half, at least one, best first; undefined scores are the worst, and of equal ones the first wins.

    Where several kept the head that they began with, which scores the same, their epochs of tuning decide.
    """
    ranked = sorted(results, key=lambda result: _rank(result, lower=lower), reverse=True)
    return ranked[: math.ceil(len(ranked) / 2)]


def best_runs(results: Sequence[Result], *, lower: bool) -> list[Result]:
    """Return the best run of each candidate, in the order in which the candidates began."""
    best: dict[str, Result] = {}
    for result in results:
        if result.name not in best or _rank(result, lower=lower) > _rank(best[result.name], lower=lower):
            best[result.name] = result
    return list(best.values())


def rows_of(results: Sequence[Result], left_out: Mapping[str, str], choice: Choice | None, *, lower: bool) -> list[dict[str, Any]]:
    """Return one row per candidate: its best run, with the seconds of all its runs; those that were left out last.

    Args:
        results: Those of all runs.
        left_out: Why candidates were not tried, by their names.
        choice: The choice, or None before it.
        lower: Whether the lowest score is the best.
    """
    rows = []
    for result in best_runs(results, lower=lower):
        seconds = round(sum(one.seconds for one in results if one.name == result.name), 3)
        chosen = choice is not None and choice.result.name == result.name
        rows.append(_row(result, seconds=seconds, chosen=chosen, note=left_out.get(result.name, "")))
    fields = dict.fromkeys(rows[0]) if rows else {}
    tried = {row["name"] for row in rows}
    missing = {name: note for name, note in left_out.items() if name not in tried}
    return rows + [{**fields, "name": name, "chosen": False, "note": note} for name, note in missing.items()]


def _row(result: Result, **more: Any) -> dict[str, Any]:
    plain = asdict(result) | more
    names = ("name", "recipe", "epochs", "score", "low", "high", "tuned", "seconds", "memory", "trained", "chosen", "note")
    return {name: None if plain[name] != plain[name] else plain[name] for name in names}


def choose(results: Sequence[Result], metric: str, *, lower: bool) -> Choice:
    """Return the best candidate, or the probe where none beats it by more than noise.

    A candidate beats the probe if it is better by more than one standard error of their difference, over the same draws of the
    held-out samples (Breiman et al. 1984); for a metric without intervals the higher value is enough.

    Args:
        results: Those of all runs in their order, that of the probe among them; of equal ones the first is better.
        metric: Name of the metric, for the reason.
        lower: Whether its lowest value is the best.
    """
    probe = next(result for result in results if result.name == PROBE)
    others = [result for result in results if result.name != PROBE and not math.isnan(result.score)]
    if not others:
        return Choice(probe, "the probe is kept: nothing else was tried")
    best = max(others, key=lambda result: _rank(result, lower=lower))
    values = f"{metric} {score_text(metric, best.score)} against {score_text(metric, probe.score)}"
    if _beats(best, probe, lower=lower):
        return Choice(best, f"{best.name} is chosen: it beats the probe, {values}")
    if best.score == probe.score and not math.isnan(best.tuned):  # the head before tuning was kept, which is that of the probe
        found = f"{metric} {score_text(metric, best.tuned)} against {score_text(metric, probe.score)}"
        return Choice(probe, f"the probe is kept: no epoch of tuning is better than it; the best of them, of {best.name}, has {found}")
    if _signed_score(best, lower=lower) <= _signed_score(probe, lower=lower):
        return Choice(probe, f"the probe is kept: no candidate is better; the best of them, {best.name}, has {values}")
    return Choice(probe, f"the probe is kept: no candidate beats it by more than noise; the best of them, {best.name}, has {values}")


def _beats(one: Result, probe: Result, *, lower: bool) -> bool:
    if math.isnan(probe.score):
        return True
    if one.draws is None or probe.draws is None:
        return _signed_score(one, lower=lower) > _signed_score(probe, lower=lower)
    gains = (np.asarray(one.draws) - np.asarray(probe.draws)) * (-1 if lower else 1)
    ends = interval_of(gains, ONE_ERROR)
    return ends is not None and ends[0] > 0


def _rank(result: Result, *, lower: bool) -> tuple[float, float]:
    """Return the score and that of the epochs of tuning, each the higher the better."""
    return _signed(result.score, lower=lower), _signed(result.tuned, lower=lower)


def _signed_score(result: Result, *, lower: bool) -> float:
    return _signed(result.score, lower=lower)


def _signed(value: float, *, lower: bool) -> float:
    return -math.inf if math.isnan(value) else -value if lower else value


def to_record(result: Result) -> dict[str, Any]:
    """Return plain data for JSON, with None for numbers that are not finite."""
    return without_nan(asdict(result))  # type: ignore[no-any-return]  # a dict stays one


def from_record(record: Mapping[str, Any]) -> Result:
    """Return the result that ``to_record`` gave.

    Raises:
        TypeError: If the record has other entries.
    """
    draws = record["draws"] and tuple(nan_for_none(value) for value in record["draws"])
    thresholds = record["thresholds"] and tuple(record["thresholds"])
    values = {name: nan_for_none(record.get(name)) for name in ("score", "tuned")}  # earlier versions did not record ``tuned``
    return Result(**{**record, **values, "draws": draws, "thresholds": thresholds})
