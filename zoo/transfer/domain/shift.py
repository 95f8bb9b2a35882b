"""The shift between two domains, measured on features, and signs that their classes differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.sources.other_libraries import is_saved_dataset
from zoo.data.table import Array, Table
from zoo.errors import DataError, count, examples
from zoo.models.task_model import TaskModel
from zoo.select.audit.findings.drift import MOST, told_apart
from zoo.tasks.labels.names import is_number
from zoo.transfer.domain.target import with_own_labels

RARE = 0.1  # of an equal share, below which the predictions say that a class is missing in the target
UNSURE, MANY = 0.05, 0.5  # quantile of the source's confidence, and share of the target below it that says that classes are new


@dataclass(frozen=True)
class Shift:
    """How far apart two domains are, by a linear classifier of the domain on rows that it was not fitted on.

    Attributes:
        auroc: Of the classifier two-sample test (Lopez-Paz & Oquab 2017): 0.5 for equal domains, 1 for domains fully apart.
        p: Chance of such an AUROC without a difference.
        a_distance: Proxy A-distance, from 0 to 2: ``2 (1 - 2 error)`` (Ben-David et al. 2010).
    """

    auroc: float
    p: float
    a_distance: float

    def __str__(self) -> str:
        found = f"a classifier tells source and target apart with AUROC {self.auroc:.3f} (p = {self.p:.1g})"
        return f"{found}, proxy A-distance {self.a_distance:.2f} of 2"


def measure_shift(source: Array, target: Array, *, seed: int) -> Shift:
    """Return the shift between the features of two domains.

    Args:
        source: ``(n, dim)``.
        target: ``(m, dim)``.
        seed: Seed of the samples and the folds.
    """
    rng = np.random.default_rng(seed)
    sides = [side[np.sort(rng.permutation(len(side))[:MOST])] for side in (source, target)]
    domains = np.repeat([0, 1], [len(side) for side in sides])
    rows = Table([*range(len(domains))], domains, ("source", "target"), source="the domains")
    found = told_apart(np.concatenate(sides), rows, seed=seed, poll=lambda _: None)
    guesses, truth = found.shares.argmax(1), domains[found.known]
    error = float(np.mean([(guesses[truth == side] != side).mean() for side in (0, 1) if (truth == side).any()]))
    return Shift(found.area, found.chance, float(np.clip(2 * (1 - 2 * error), 0.0, 2.0)))


def named_differences(model: TaskModel, classes: Sequence[str], target: Any) -> list[str]:
    """Return how the class names of a target that has some differ from those of the source; labels of samples are not used.

    Folders within an unlabelled folder are read as class names too, so names of which the source has none are one line. Labels that
    were given otherwise, such as in a table, are those of other classes, unless they are indices of the source's.

    Args:
        model: The model, which says how the samples are read.
        classes: Names of the source's classes.
        target: The target as it was given.

    Raises:
        DataError: If the target has labels, and none is a class of the source.
    """
    table = with_own_labels(model, target, task=model.task)
    if table is None:
        return []
    names = table.classes
    if _are_indices(names, classes):
        return []
    if names and not {*names} & {*classes}:
        found = f"no name of the target is a class of the source: {examples(names)}"
        if not _is_folder(target):
            remedy = f"name its classes as in the source ({examples(classes)}), or give the target without labels"
            raise DataError(f"{found}; nothing that is learned on the source holds for other classes: {remedy}")
        return [
            f"{found}; folders of unlabelled samples do no harm, and where these "
            "are its classes, nothing that is learned on the source holds for them"
        ]
    new, missing = [name for name in names if name not in classes], [name for name in classes if name not in names]
    lines = [f"the target names {count(len(new), 'class')} that the source lacks: {examples(new)} (open set)"] if new else []
    return lines + ([f"the target lacks {len(missing)} classes of the source: {examples(missing)} (partial)"] if missing and names else [])


def _are_indices(names: Sequence[str], classes: Sequence[str]) -> bool:
    """Return whether names of classes, as text, are indices of classes that are not numbers themselves."""
    return not any(map(is_number, classes)) and all(name.isdecimal() and int(name) < len(classes) for name in names)


def _is_folder(source: Any) -> bool:
    """Return whether a source is a folder of files, which may have subfolders that are no classes."""
    return isinstance(source, str | os.PathLike) and Path(source).expanduser().is_dir() and not is_saved_dataset(Path(source))


def predicted_differences(classes: Sequence[str], source: Array, target: Array) -> list[str]:
    """Return signs in the predictions that the classes of the domains differ.

    Args:
        classes: Names of the classes.
        source: Probabilities of held-out samples of the source, ``(n, classes)``.
        target: Probabilities ``(m, classes)``.
    """
    shares = np.bincount(target.argmax(1), minlength=len(classes)) / len(target)
    known = np.bincount(source.argmax(1), minlength=len(classes)) / len(source)
    rare = [name for name, share, own in zip(classes, shares, known, strict=True) if share < RARE / len(classes) <= own]
    lines = [f"hardly any sample of the target is predicted as {examples(rare)}: it may lack them (partial)"] if rare else []
    unsure = float((target.max(1) < np.quantile(source.max(1), UNSURE)).mean())
    if unsure > MANY:
        message = f"{unsure:.0%} of the target's predictions are less sure than {1 - UNSURE:.0%} of the source's"
        lines.append(f"{message}: the shift is large, or the target has classes that the source lacks (open set)")
    return lines
