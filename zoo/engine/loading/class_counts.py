"""Numbers of samples per class: warnings before training about rare ones, and the metric that chooses the epoch."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from zoo.data.table import Table
from zoo.errors import count, examples
from zoo.tasks.task import Task

log = logging.getLogger("zoo")
FEW = 5  # samples of a class
MEDICAL = (".dcm", ".dicom", ".nii", ".nii.gz")  # endings of files
EXTREME = 100.0  # ratio of the largest class weight to the smallest


def warn_of_rare_classes(task: Task, train: Table, valid: Table | None, class_weights: Any) -> None:
    """Log in one line each: classes of one sample, of few samples, without samples in valid, and extreme balanced weights.

    Args:
        task: The task; one with several targets per sample is not looked at, as its counts are of words.
        train: Training data.
        valid: Validation data, or None.
        class_weights: The option of the run.
    """
    counts = {} if task.per_token else train.counts()
    if not counts:
        return
    single = [repr(name) for name, number in counts.items() if number == 1]
    few = [f"{name!r} ({number})" for name, number in counts.items() if 1 < number < FEW]
    if single:
        line = "%s: %s a single sample in train, from which little can be learnt: %s; add samples, or leave them out"
        log.warning(line, train.source, _have(single), examples(single))
    if few:
        ways = "class_weights='balanced' lets" if train.parts else "class_weights='balanced' or balanced_sampling=True let"
        equal = task.exclusive and len(set(counts.values())) == 1  # no weight would change anything
        hint = "" if class_weights or equal else f"; {ways} them count more"
        log.warning("%s: %s fewer than %d samples in train: %s%s", train.source, _have(few), FEW, examples(few), hint)
    if valid is not None:
        absent = [repr(name) for name, number in valid.counts().items() if not number]
        if absent:
            log.warning("%s: %s no sample in valid, so no metric measures them: %s", valid.source, _have(absent), examples(absent))
    if class_weights == "balanced":
        weights = task.class_weights(np.asarray(train.targets), train.classes)
        high, low = int(np.argmax(weights)), int(np.argmin(weights))
        ratio = float(weights[high] / weights[low])
        if ratio >= EXTREME:
            names, numbers = list(counts), list(counts.values())
            line = "class_weights='balanced' weighs %r (%s) %.0f times as much as %r (%s); give weights of your own to limit that"
            log.warning(line, names[high], count(numbers[high], "sample"), ratio, names[low], count(numbers[low], "sample"))


def monitor_of(task: Task, train: Table, valid: Table | None) -> str | None:
    """Return the metric that chooses the kept epoch where that is not the task's first one, and log the reason; else None.

    Args:
        task: The task.
        train: Training data, whose classes decide.
        valid: Validation data, on which it must have a value; None if there are none.
    """
    if valid is None or task.per_token or train.targets is None:
        return None
    files = train.inputs if isinstance(train.inputs, list) else []  # a dataset is not read before the run
    medical = train.reads == "volume" or any(str(name).lower().endswith(MEDICAL) for name in files[:1])
    found = task.default_monitor(np.asarray(train.targets), medical=medical)
    if found == task.monitors[0] or len([number for number in valid.counts().values() if number]) < 2:
        return None
    counts = train.counts()
    commonest = max(counts, key=lambda name: counts[name])
    share = f"{100 * counts[commonest] / sum(counts.values()):.0f} % of the training samples are {commonest!r}"
    line = "epochs are compared by %s, as %s; another metric is chosen by monitor (%s)"
    log.info(line, found, share if task.is_skewed(np.asarray(train.targets)) else "the samples are medical", task.monitors[0])
    return found


def _have(names: list[str]) -> str:
    return f"{count(len(names), 'class')} {'has' if len(names) == 1 else 'have'}"
