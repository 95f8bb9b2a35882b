"""Soups: the mean of the values of several runs, of all or of those with which held-out data do not get worse (Wortsman et al. 2022)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.declare import Origin
from zoo.errors import count
from zoo.models.task_model import TaskModel
from zoo.saved.load import load
from zoo.saved.tensors import read_state
from zoo.select.merging.candidates import Merged, checked_candidates, not_worse, score_of
from zoo.trust.calibration import tempered_threshold
from zoo.util.atomic_write import write_json
from zoo.util.numbers import score_text

RECORD = "soup.json"
log = logging.getLogger("zoo")


def soup(
    runs: Sequence[str | Path], valid: Any, *, out: str | Path, metric: str | None = None, uniform: bool = False, **options: Any
) -> Merged:
    """Average the values of fine-tuned models of one pretrained backbone, and save the result: one model, as fast as any of them.

    The best model on the held-out data begins. The others follow in the order of their scores, and each stays in the mean if the data
    are predicted no worse with it; in a uniform soup all stay, and the data say only whether that is worse than the best alone.

    Args:
        runs: Folders of runs, or of a cross-validation, whose folds are taken.
        valid: Labelled data that none of them was trained on.
        out: The folder of the result.
        metric: The metric that chooses; None for the first of the task.
        uniform: Whether all runs are averaged, whatever the data say.
        **options: As for ``evaluate``.

    Returns:
        The model, and what was tried.

    Raises:
        OptionError: If the models are of other backbones, heads, classes or inputs, and for two and more mistakes; all are named.
        OutputExistsError: If the folder is not empty, and nothing else is wrong.
    """
    found, metric, lower = checked_candidates(runs, valid, out=out, metric=metric, options=options, averaged=True)
    scores, trained_on = dict[str, float](), dict[str, tuple[str, ...]]()
    for one in found:
        alone = uncalibrated(load(one.folder))
        scores[str(one.folder)] = score_of(alone.evaluate(valid, **options), metric, one.folder)
        trained_on[str(one.folder)] = alone.trained_on
    order = sorted(found, key=lambda one: scores[str(one.folder)] if lower else -scores[str(one.folder)])
    best = order[0]
    model, values = uncalibrated(load(best.folder)), read_state(best.folder)
    kept, score, steps = [str(best.folder)], scores[str(best.folder)], list[dict[str, Any]]()
    for one in order[1:]:
        mixed = mean_values(values, len(kept), read_state(one.folder))
        model.load_state_dict(mixed)
        with_it = score_of(model.evaluate(valid, **options), metric, one.folder)
        added = uniform or not_worse(with_it, score, lower=lower)
        steps.append({"run": str(one.folder), "score": with_it, "added": added})
        if added:
            values, score = mixed, with_it
            kept.append(str(one.folder))
    if not not_worse(score, scores[kept[0]], lower=lower):
        line = "the mean of all %d has %s %s on these data, worse than %s of %s alone; the greedy soup leaves out what harms"
        log.warning(line, len(kept), metric, *(score_text(metric, each) for each in (score, scores[kept[0]])), kept[0])
    model.load_state_dict(values)
    model.trained_on = tuple(dict.fromkeys(digest for name in kept for digest in trained_on[name]))
    model.origins = (*model.origins, Origin(step="mean", name=count(len(kept) - 1, "further run")))
    folder = model.eval().save(out)
    merged = Merged(model, kept, metric, score, scores, steps, folder)
    write_json(folder / RECORD, merged.record("soup"))
    return merged


def uncalibrated(model: TaskModel) -> TaskModel:
    """Return the model without its calibration, which is of its own values and not of their mean."""
    if model.calibration is not None and model.thresholds is not None:
        model.thresholds = tuple(tempered_threshold(each, 1 / model.calibration.temperature) for each in model.thresholds)
    model.calibration = None
    return model


def mean_values(mean: Mapping[str, Tensor], count: int, further: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean of ``count`` models with one more; whole numbers, such as counters of BatchNorm, stay those of the first."""
    return {
        name: ((value.double() * count + further[name].double()) / (count + 1)).to(value.dtype) if value.is_floating_point() else value
        for name, value in mean.items()
    }
