"""Episodes: many small tasks drawn from labelled data, and the mean accuracy of a few-shot method on them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.data.splits.leaks import check_leak
from zoo.errors import DataError, OptionError, examples, fault_list
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.transfer.fewshot.few_shot import check_pass_options, features_of, found_backbone, opened
from zoo.transfer.fewshot.heads import Head, head_named
from zoo.util.numbers import is_whole

Rows = npt.NDArray[np.int64]
NORMAL_95 = 1.959964  # standard errors on each side of a 95 % interval


@dataclass(frozen=True)
class Episodes:
    """Accuracies of a method on episodes.

    Attributes:
        accuracies: One per episode, in [0, 1].
        method: The method.
        ways: Classes of an episode.
        shots: Labelled samples of a class.
        queries: Most queries of a class.
    """

    accuracies: tuple[float, ...]
    method: str
    ways: int
    shots: int
    queries: int

    @property
    def accuracy(self) -> float:
        """The mean accuracy."""
        return float(np.mean(self.accuracies))

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval of the mean, over episodes drawn from the same samples."""
        return NORMAL_95 * float(np.std(self.accuracies, ddof=1) / np.sqrt(len(self.accuracies)))


@dataclass(frozen=True)
class Draw:
    """How episodes are drawn.

    Attributes:
        ways: Classes of an episode; 0 for all.
        shots: Labelled samples of a class.
        queries: Most queries of a class.
        episodes: Number of episodes.
        seed: Of the draws.
    """

    ways: int = 0
    shots: int = 5
    queries: int = 15
    episodes: int = 600
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"ways": 0, "shots": 1, "queries": 1, "episodes": 2, "seed": 0}
        faults = [
            f"{name} is {getattr(self, name)!r}; it must be a whole number, {low} or more"
            for name, low in least.items()
            if not is_whole(getattr(self, name)) or getattr(self, name) < low
        ]
        if self.ways == 1:
            faults.append("ways is 1; an episode needs two classes or more")
        if faults:
            raise OptionError(fault_list("episodes cannot be drawn like this:", faults))


def few_shot_episodes(
    backbone: Backbone | TaskModel | str,
    support: Any,
    query: Any = None,
    method: str = "simpleshot",
    *,
    ways: int = 0,
    shots: int = 5,
    queries: int = 15,
    episodes: int = 600,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    allow_leak: bool = False,
    **options: Any,
) -> Episodes:
    """Measure a few-shot method on episodes: N classes, K labelled samples of each, and queries of the same classes (Vinyals et al. 2016).

    Features are computed once for all episodes. ``logistic`` has a fixed penalty in episodes.

    Args:
        backbone: As for ``few_shot``.
        support: Labelled data from which supports are drawn.
        query: Labelled data from which queries are drawn; None draws both from ``support``, never one sample as both.
        method: As for ``few_shot``.
        ways: Classes of an episode, the N; 0 for all.
        shots: Labelled samples of a class, the K.
        queries: Most queries of a class.
        episodes: Number of episodes, at least 2.
        seed: Seed of the draws.
        columns: As for ``few_shot``.
        root: As for ``few_shot``.
        allow_leak: Allow samples that are in both data.
        **options: As for ``few_shot``.

    Raises:
        OptionError: For a number out of range, and an unknown method or option.
        DataError: If there are fewer classes than ``ways``, or classes with fewer samples than ``shots``, all of them named.
        LeakError: If a sample is in both data.
    """
    draw, head = Draw(ways, shots, queries, episodes, seed), head_named(method, quick=True)
    check_pass_options(options, "few_shot_episodes()", beside=("ways", "shots", "queries", "episodes"))
    model = found_backbone(backbone)
    opening: dict[str, Any] = {"columns": columns or {}, "root": root}
    tables = [opened(model, support, opening, labelled=True)]
    if query is not None:
        tables.append(opened(model, query, opening, labelled=True, classes=tables[0].classes))
        check_leak(tables[0], tables[1], allow=allow_leak)
    counts = [table.counts() for table in tables]
    check_enough(counts[0], counts[-1] if query is not None else None, draw)
    features = features_of(model, tuple(tables), options)
    targets = [np.asarray(table.targets) for table in tables]
    accuracies = scores(head, features, targets, draw)
    return Episodes(tuple(accuracies), method, draw.ways or len(counts[0]), shots, queries)


def check_enough(support: Mapping[str, int], queries: Mapping[str, int] | None, draw: Draw) -> None:
    """Check that every class has enough samples.

    Args:
        support: Samples per class.
        queries: Those of the queries; None if they come from the support.
        draw: The numbers of an episode.

    Raises:
        DataError: Naming all classes with too few, and too many ways.
    """
    needed = draw.shots + (queries is None)
    few = [f"{name} ({number})" for name, number in support.items() if number < needed]
    faults = []
    if few:
        more = " and a query of the same data" if queries is None else ""
        faults.append(f"shots is {draw.shots}{more}, and fewer samples are there of {examples(few)}; lower shots, or add samples")
    if draw.ways > len(support):
        faults.append(f"ways is {draw.ways}, and there are {len(support)} classes; lower ways, or leave it out for all")
    if missing := [name for name in support if queries is not None and not queries.get(name)]:
        faults.append(f"there is no query of {examples(missing)}; add one of each, or leave these classes out of the support")
    if faults:
        raise DataError(fault_list("no episodes can be drawn:", faults))


def scores(head: Head, features: list[Tensor], targets: list[Rows], draw: Draw) -> list[float]:
    """Return the accuracy of a head on each episode.

    Args:
        head: The head.
        features: ``(samples, dim)`` of the data of the support, and of those of the queries where they are others.
        targets: Their classes, as whole numbers from 0.
        draw: The numbers of an episode.
    """
    random = np.random.default_rng(draw.seed)
    rows = [[np.flatnonzero(part == name) for name in range(int(targets[0].max()) + 1)] for part in targets]
    ways = draw.ways or len(rows[0])
    found = []
    for _ in range(draw.episodes):
        classes = random.permutation(len(rows[0]))[:ways]
        drawn = [random.permutation(rows[0][name]) for name in classes]
        rest = [each[draw.shots :] for each in drawn] if len(rows) == 1 else [random.permutation(rows[1][name]) for name in classes]
        few, others = ([each[:most] for each in part] for part, most in ((drawn, draw.shots), (rest, draw.queries)))
        known, truth = (torch.from_numpy(np.repeat(np.arange(ways), [*map(len, part)])) for part in (few, others))
        with torch.no_grad():
            logits = head(features[0][np.concatenate(few)], known, ways)(features[-1][np.concatenate(others)])
        found.append(float((logits.argmax(1) == truth).float().mean()))
    return found
