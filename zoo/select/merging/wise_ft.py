"""WiSE-FT: values between those of a zero-shot model and of the same model after fine-tuning (Wortsman et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.declare import Origin
from zoo.engine.optim.weight_averaging import interpolate
from zoo.errors import OptionError
from zoo.models.task_model import TaskModel
from zoo.saved.load import load
from zoo.saved.save import check_free
from zoo.saved.tensors import read_state
from zoo.select.merging.candidates import metric_of, open_candidates, score_of
from zoo.select.merging.soup import uncalibrated
from zoo.util.atomic_write import write_json
from zoo.util.numbers import is_finite

RECORD = "wise-ft.json"
MIDDLE = 0.5  # what the paper recommends where nothing chooses
GRID = tuple(step / 10 for step in range(11))


@dataclass(frozen=True)
class Interpolated:
    """The result of ``wise_ft``.

    Attributes:
        model: The model.
        alpha: Share of the fine-tuned values, in [0, 1].
        metric: The metric that chose; empty where alpha was given.
        scores: Its value on the held-out data for each alpha that was tried.
        dir: Folder of the saved result.
    """

    model: TaskModel
    alpha: float
    metric: str = ""
    scores: dict[float, float] = field(default_factory=dict)
    dir: Path = Path()

    def record(self) -> dict[str, Any]:
        """Return the content of the JSON file beside the result."""
        scores = {f"{alpha:g}": score for alpha, score in self.scores.items()}
        return {"kind": "wise-ft", "alpha": self.alpha, "metric": self.metric, "scores": scores}


def wise_ft(
    start: str | Path,
    tuned: str | Path,
    valid: Any = None,
    *,
    out: str | Path,
    alpha: float | Sequence[float] | None = None,
    metric: str | None = None,
    **options: Any,
) -> Interpolated:
    """Save the model whose values are ``(1 - alpha) * start + alpha * tuned``: as fast as either, and often better off the training data.

    Args:
        start: Folder of the model before fine-tuning, such as a saved zero-shot model.
        tuned: Folder of the same model after it.
        valid: Labelled data that chooses alpha; None where one alpha is taken as it is.
        out: The folder of the result.
        alpha: Share of the fine-tuned values, in [0, 1], or several to choose from; None is 0.5 without ``valid``, and 0, 0.1, … 1 with it.
        metric: The metric that chooses; None for the first of the task. Of equal scores the alpha nearest to 0.5 is taken.
        **options: As for ``evaluate``.

    Raises:
        OptionError: If the models are not the same network with the same classes, alpha is out of range, or nothing chooses it.
        OutputExistsError: If the folder is not empty.
    """
    alphas = _alphas(alpha, chosen=valid is not None)
    check_free(Path(out), overwrite=None)
    found = open_candidates([start, tuned], averaged=True)
    if len(found) != 2:
        raise OptionError(
            f"{str(start)!r} and {str(tuned)!r} hold {len(found)} models, and two are mixed; name the folder of one model each"
        )
    if "metrics" in options or (valid is None and (options or metric is not None)):
        raise OptionError("metrics: alpha is chosen by a metric of the task, on valid=…; name it with metric=…")
    before, after = (read_state(one.folder) for one in found)
    first, model = (uncalibrated(load(one.folder)) for one in found)
    metric, lower = metric_of(found[0].config.task, metric) if valid is not None else ("", False)

    def move(share: float) -> None:
        model.load_state_dict(after)
        interpolate(model, before, share)

    scores = dict[float, float]()
    for each in alphas if valid is not None else ():
        move(each)
        scores[each] = score_of(model.evaluate(valid, **options), metric, found[1].folder)
    order = {each: (score if lower else -score, abs(each - MIDDLE)) for each, score in scores.items()}
    best = min(order, key=lambda each: order[each]) if order else alphas[0]
    move(best)
    model.trained_on = tuple(dict.fromkeys((*first.trained_on, *model.trained_on)))
    model.origins = (*model.origins, Origin(step="mean", name=f"{1 - best:g} of the values before"))
    folder = model.eval().save(out)
    result = Interpolated(model, best, metric, scores, folder)
    write_json(folder / RECORD, result.record())
    return result


def _alphas(given: float | Sequence[float] | None, *, chosen: bool) -> list[float]:
    """Return the shares to try.

    Raises:
        OptionError: If one is out of range, or there are several and no data that choose.
    """
    if given is None:
        return list(GRID) if chosen else [MIDDLE]
    found = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if odd := [repr(each) for each in found if not (is_finite(each) and 0 <= each <= 1)]:
        raise OptionError(f"alpha is {', '.join(odd)}; it is a share of the fine-tuned values, in [0, 1]")
    if not found or (len(found) > 1 and not chosen):
        raise OptionError(f"alpha: {len(found)} values are given, and no data that choose one; give valid=… (--valid), or one alpha")
    return list(dict.fromkeys(map(float, found)))
