"""Greedy ensemble: the models whose mean probabilities predict held-out data best (Caruana et al. 2004, without repetition)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.engine.inference.metrics import compute_metrics
from zoo.models.ensemble import Ensemble, mean_outputs, mean_thresholds
from zoo.models.task_model import TaskModel
from zoo.saved.load import load
from zoo.select.merging.candidates import Merged, checked_candidates, not_worse, score_of
from zoo.tasks.find import find_task
from zoo.util.atomic_write import write_json

RECORD = "chosen.json"
Array = npt.NDArray[Any]


def ensemble(runs: Sequence[str | Path], valid: Any, *, out: str | Path, metric: str | None = None, **options: Any) -> Merged:
    """Choose the models whose mean probabilities predict held-out data best, and save them as one.

    The best model begins; then the one that improves the mean most is added, until none does. Where none improves the best model, that
    is saved alone.

    Args:
        runs: Folders of runs, or of a cross-validation, whose folds are taken.
        valid: Labelled data that none of them was trained on.
        out: The folder of the result.
        metric: The metric that chooses; None for the first of the task.
        **options: As for ``evaluate``.

    Raises:
        OptionError: If the models have other tasks, classes or inputs, and for two and more mistakes; all are named.
        OutputExistsError: If the folder is not empty, and nothing else is wrong.
    """
    found, metric, lower = checked_candidates(runs, valid, out=out, metric=metric, options=options, averaged=False)
    task = found[0].config.task
    names = [str(one.folder) for one in found]
    outputs, targets, classes = list[Array](), np.zeros(0), tuple[str, ...]()
    thresholds: list[tuple[float, ...] | None] = []
    for one in found:
        model = load(one.folder)
        measured = model.evaluate(valid, **options)
        outputs.append(measured.outputs)
        thresholds.append(model.thresholds)
        targets, classes = np.asarray(measured.table.targets), measured.table.classes

    def score(places: Sequence[int]) -> float:
        pooled = mean_outputs(task, [outputs[place] for place in places]) if len(places) > 1 else outputs[places[0]]
        own = mean_thresholds([thresholds[place] for place in places])
        return score_of(compute_metrics(find_task(task), pooled, targets, classes, own), metric, names[places[0]])

    scores = {name: score([place]) for place, name in enumerate(names)}
    chosen, reached, steps = _greedy(names, score, lower=lower)
    members = [load(names[place]) for place in chosen]
    together: TaskModel = Ensemble(members).eval() if len(members) > 1 else members[0]
    folder = together.save(out)
    merged = Merged(together, [names[place] for place in chosen], metric, reached, scores, steps, folder)
    write_json(folder / RECORD, merged.record("ensemble"))
    return merged


def _greedy(names: Sequence[str], score: Any, *, lower: bool) -> tuple[list[int], float, list[dict[str, Any]]]:
    """Return the chosen places, their score, and what was tried."""
    sign = 1.0 if lower else -1.0
    chosen = [min(range(len(names)), key=lambda place: sign * score([place]))]
    reached, steps = score(chosen), list[dict[str, Any]]()
    while left := [place for place in range(len(names)) if place not in chosen]:
        best = min(left, key=lambda place: sign * score([*chosen, place]))
        with_it = score([*chosen, best])
        added = not_worse(with_it, reached, lower=lower) and with_it != reached
        steps.append({"run": names[best], "score": with_it, "added": added})
        if not added:
            break
        chosen.append(best)
        reached = with_it
    return chosen, reached, steps
