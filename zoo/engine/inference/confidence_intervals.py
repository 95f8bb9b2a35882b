"""Confidence intervals of metrics by a bootstrap over groups, such as patients (Efron 1979).

A draw is a weight per sample, the number of times that its group was drawn. Each metric is computed for all draws at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import DataError, OptionError
from zoo.tasks.find import find_task
from zoo.tasks.task import Task
from zoo.tasks.thresholds import moved
from zoo.trust.metric_table import LIKELIEST, Metric, is_share
from zoo.trust.outcome import outcome_of

log = logging.getLogger("zoo")

Array = npt.NDArray[Any]
LEVEL = 0.95  # share of the draws inside an interval, where none is given
DRAWS = 1000
_CELLS = 4_000_000  # weights in memory at once
_NONE: Mapping[str, Metric] = MappingProxyType({})


def check_level(task: str, level: float) -> None:
    """Check the level, and that the task has intervals.

    Raises:
        OptionError: If ``level`` is outside (0, 1), or the task has no metrics of single samples.
    """
    if not 0 < level < 1:
        raise OptionError(f"intervals is {level}; it is the share that an interval covers, in (0, 1), such as 0.95")
    if type(find_task(task)).weighted_metrics is Task.weighted_metrics:
        why = f"the task is {find_task(task).words}, which has none, as it may count entities"
        raise OptionError(f"intervals are for metrics of single samples; {why}")


def intervals(
    task: str,
    logits: Array,
    targets: Array,
    *,
    groups: Sequence[str] | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
    thresholds: Sequence[float] | Array | None = None,
    more: Mapping[str, Metric] = _NONE,
) -> dict[str, float]:
    """Return ``NAME_low`` and ``NAME_high`` for each metric of the task: percentiles over draws in which it is defined.

    Args:
        task: Name of a task that has intervals.
        logits: ``(n, classes)``, or outputs.
        targets: As the task's ``metrics`` takes them.
        groups: Group of each sample, such as the patient; None draws samples.
        level: Share of the draws inside the interval, in (0, 1).
        draws: Number of draws.
        seed: Seed of the draws.
        thresholds: Probability above which each label is predicted; None for one half.
        more: Metrics by name beside those of the task.

    Raises:
        OptionError: If ``level`` is outside (0, 1), or the task has no metrics of single samples.
        DataError: If there are fewer than two groups.
    """
    check_level(task, level)
    drawing: dict[str, Any] = {"groups": groups, "draws": draws, "seed": seed, "thresholds": thresholds}
    drawn = drawn_metrics(task, logits, targets, more=more, **drawing)
    result: dict[str, float] = {}
    for name, values in drawn.items():
        if (ends := interval_of(values, level, units=exact_units(task, name, targets, groups))) is not None:
            result |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
    if "accuracy" in drawn and is_share(task, "accuracy") and np.all(drawn["accuracy"] == 1):
        log.warning(
            "no sample is predicted wrongly, which draws cannot vary: the interval of the accuracy is the exact one of %d %s (Clopper and "
            "Pearson 1934), and that of the balanced accuracy too (Buehler 1957); those of other metrics may have no width, which does not "
            "make them certain",
            *exact_units(task, "accuracy", targets, groups),
            "samples" if groups is None else "groups",
        )
    return result


def exact_units(task: str, metric: str, targets: Array, groups: Sequence[str] | None) -> tuple[int, ...]:
    """Return the number of samples behind each share that a metric averages, as ``exact_bound`` takes them; empty for other metrics.

    The accuracy and ``top_K`` are one share, the balanced accuracy is the mean of one per class. With groups these are numbers of
    groups. A group with samples of several classes counts for the rarest of them alone: the probability that all its samples are right
    is at most that of its samples of that class.

    Args:
        task: Name of the task.
        metric: Name of the metric.
        targets: Class indices ``(n,)``, read only for the balanced accuracy.
        groups: Group of each sample, such as the patient; None if samples are independent.
    """
    if is_share(task, metric):
        return (len(targets) if groups is None else len(set(groups)),)
    if task not in LIKELIEST or metric != "balanced_accuracy":
        return ()
    names = np.arange(len(targets)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    pairs = np.unique(np.stack([names, np.asarray(targets, dtype=np.int64)]), axis=1)  # each class of each group once
    kinds, counts = np.unique(pairs[1], return_counts=True)
    ranks = np.argsort(np.argsort(counts, kind="stable"))[np.searchsorted(kinds, pairs[1])]
    rarest = np.full(pairs[0].max() + 1, len(kinds))
    np.minimum.at(rarest, pairs[0], ranks)
    return tuple(np.bincount(rarest[np.unique(pairs[0])], minlength=len(kinds)).tolist())


def exact_bound(units: Sequence[int], level: float) -> float:
    """Return the exact lower confidence bound of a mean of shares where no sample is wrong (Buehler 1957).

    It is the smallest mean of true shares p_k under which no mistake has the probability prod(p_k ** units_k) = (1 - level) / 2. At this
    minimum each p_k is proportional to units_k, and at most 1. For one share it is the bound of Clopper and Pearson (1934).

    Args:
        units: Number of samples, or groups, of each share, at least one above 0; the true share behind a 0 may be 0.
        level: Share of such intervals that hold the true mean, in (0, 1).
    """
    sizes, tail = np.sort([float(number) for number in units if number]), np.log((1 - level) / 2)
    for capped in range(len(sizes)):  # the shares of the most units are 1 where they would be above
        free = sizes[: len(sizes) - capped]
        scale = np.exp((tail - (free * np.log(free)).sum()) / free.sum())
        if scale * free[-1] <= 1:
            break
    return float((scale * free.sum() + capped) / len(units))


def interval_of(draws: npt.ArrayLike, level: float = LEVEL, *, units: Sequence[int] = ()) -> tuple[float, float] | None:
    """Return the percentiles that hold the share ``level`` of the draws that are finite; None without any.

    Args:
        draws: A metric in each draw.
        level: Share of the draws inside the interval, in (0, 1).
        units: What ``exact_units`` returns. Where all samples are right, or all wrong, draws do not vary, and the interval is the exact
            one of ``exact_bound``, [0.926, 1] for 48 right ones at 0.95. Empty for percentiles always.
    """
    values = np.asarray(draws, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    least, most = float(values.min()), float(values.max())
    if units and least == most and least in (0.0, 1.0):
        bound = exact_bound(units, level)
        return (bound, 1.0) if least else (0.0, 1 - bound)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def drawn_metrics(
    task: str,
    logits: Array,
    targets: Array,
    *,
    groups: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    thresholds: Sequence[float] | Array | None = None,
    more: Mapping[str, Metric] = _NONE,
) -> dict[str, Array]:
    """Return each metric in each draw, NaN where it is undefined; the same seed and groups give the same draws for any logits.

    Args as ``intervals``.

    Raises:
        DataError: If there are fewer than two groups.
    """
    names: Any = np.arange(len(logits)) if groups is None else np.asarray(groups)
    how: dict[str, Any] = {"thresholds": thresholds, "more": more}
    parts = [weighted_metrics(task, logits, targets, weights, **how) for weights in _weights(names, draws, seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def drawn_metric(
    name: str,
    task: str,
    logits: Array,
    targets: Array,
    *,
    groups: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    known: dict[tuple[bytes, int, int], Array] | None = None,
) -> Array:
    """Return one metric of ``drawn_metrics``, without the cost of the others; empty if the task has none of this name.

    Args:
        name: The metric.
        task: As ``intervals``.
        logits: As ``intervals``.
        targets: As ``intervals``.
        groups: As ``intervals``.
        draws: As ``intervals``.
        seed: As ``intervals``.
        known: Weights that earlier calls have drawn, by the bytes of the groups, the draws and the seed, to which those of this call are
            added; None draws anew.

    Raises:
        DataError: If there are fewer than two groups.
    """
    kind, logits, targets = find_task(task), np.asarray(logits, dtype=np.float64), np.asarray(targets)
    names: Any = np.arange(len(logits)) if groups is None else np.asarray(groups)
    drawn: Iterable[Array] = _weights(names, draws, seed)
    if known is not None and draws * len(names) <= _CELLS:  # a single part
        key = names.tobytes(), draws, seed
        if key not in known:
            known[key] = next(iter(drawn))
        drawn = [known[key]]
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [kind.weighted_metric(name, logits, targets, weights) for weights in drawn]
    return np.concatenate([np.array([]) if part is None else part for part in parts])


def _weights(names: Array, draws: int, seed: int) -> Iterator[Array]:
    """Yield how often each sample counts in each draw of groups, ``(draws, samples)``, some draws at a time.

    Raises:
        DataError: If there are fewer than two groups.
    """
    ids = np.unique(names, return_inverse=True)[1]
    number = int(ids.max()) + 1
    if number < 2:
        raise DataError(f"intervals need two or more groups to draw from; the data have {number}")
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // len(ids))
    for start in range(0, draws, step):
        counts = rng.multinomial(number, np.full(number, 1 / number), size=min(step, draws - start))
        yield counts[:, ids].astype(np.float64)


def weighted_metrics(
    task: str,
    logits: Array,
    targets: Array,
    weights: Array,
    *,
    thresholds: Sequence[float] | Array | None = None,
    more: Mapping[str, Metric] = _NONE,
) -> dict[str, Array]:
    """Return each metric of the task for each row of weights; NaN where it is undefined.

    Args:
        task: Name of a task that has intervals.
        logits: ``(n, classes)``, or outputs.
        targets: Per sample.
        weights: ``(draws, n)``, how often each sample counts.
        thresholds: Probability above which each label is predicted, or such a row per sample; None for one half.
        more: Metrics by name beside those of the task.
    """
    kind, logits, targets = find_task(task), np.asarray(logits, dtype=np.float64), np.asarray(targets)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = kind.weighted_metrics(logits, targets, weights)
        assert found is not None, "a task without intervals was let through"
        if thresholds is not None:
            decided = kind.weighted_metrics(moved(logits, thresholds), targets, weights) or {}
            found |= {name: decided[name] for name in kind.thresholded}
    outcome = outcome_of(kind, logits, targets, thresholds) if more else None
    return found | {name: metric.values(outcome, weights) for name, metric in more.items() if outcome is not None}


def check_specificity(task: str, specificity: float, name: str = "specificity") -> None:
    """Check the specificity, or the sensitivity, and that the task has classes.

    Raises:
        OptionError: Naming the value or the task.
    """
    if not 0 <= specificity <= 1:
        raise OptionError(f"{name} is {specificity}; it is a share, in [0, 1], such as 0.95")
    if not find_task(task).has_specificity:
        raise OptionError(f"{name} is for classes; the task is {task}")
