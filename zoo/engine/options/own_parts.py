"""The user's own parts of a run: functions and objects that no configuration file can hold."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import OwnPartError, refusals
from zoo.tasks.several import SeveralTasks
from zoo.tasks.task import Task
from zoo.tasks.thresholds import USUAL
from zoo.trust.metric_table import Metric, find_metrics

log = logging.getLogger("zoo")
Array = npt.NDArray[Any]
BEST = {"max": False, "min": True}
PLAIN = (bool, int, float, str, tuple)
# Other keys of an epoch's record.
NO_METRICS = ("epoch", "phase", "lr", "penalty", "converged", "train_loss", "seconds", "samples_per_second")


@dataclass(frozen=True)
class OwnParts:
    """The user's own parts of one run.

    Attributes:
        loss: Function of the logits and targets of a batch to one value per sample, with a further argument ``mask`` if it takes
            one; None for a loss by name.
        metrics: Functions of scikit-learn's form by name, see ``own_metrics``, and metrics of ``zoo.trust.metric_table``.
        lower: Names of the metrics whose lowest value is the best.
        augment: Function from a decoded image to another; None for an augmentation by name.
        log_with: Trackers of Accelerate: names or objects.
        on_epoch: Called with a copy of each line of the history.
    """

    loss: Callable[..., Any] | None = None
    metrics: Mapping[str, Callable[..., Any] | Metric] = field(default_factory=dict)
    lower: frozenset[str] = frozenset()
    augment: Callable[[Any], Any] | None = None
    log_with: tuple[Any, ...] = ()
    on_epoch: Callable[[dict[str, Any]], Any] | None = None

    @property
    def masks(self) -> bool:
        """Whether the loss takes ``mask``, which is False where a label is missing."""
        if self.loss is None:
            return False
        try:
            return "mask" in inspect.signature(getattr(self.loss, "forward", self.loss)).parameters
        except (TypeError, ValueError):  # a builtin without a signature
            return False

    def describe(self) -> dict[str, Any]:
        """Return the parts that change the result as plain data, which is compared when a run is resumed."""
        named = {"loss": self.loss and name_of(self.loss), "augment": self.augment and name_of(self.augment)}
        described = {key: value for key, value in named.items() if value}
        directions = {name: "min" if name in self.lower else "max" for name in self.metrics}
        return described | ({"metrics": directions} if directions else {})


def take_own_parts(options: dict[str, Any], task: Task, faults: list[str], *, outputs: int | None = None) -> OwnParts:
    """Remove the user's own parts from the options of a run, in place; plain data is left.

    Args:
        options: Options by name, changed in place.
        task: The task of the model.
        faults: A message is appended for each part that cannot be used.
        outputs: Number of classes, if known.
    """
    own: dict[str, Any] = {}
    for name in ("loss", "augment"):
        if callable(options.get(name)):
            own[name] = options.pop(name)
            if any(parameter.requires_grad for parameter in _parameters(own[name])):
                faults.append(f"{name} has parameters, which would not train; an objective trains further modules, see docs/objectives.md")
            if inspect.isclass(own[name]):
                faults.append(f"{name} is the class {own[name].__name__}; give an object of it, such as {own[name].__name__}(…)")
    faults += _names_only(options)
    if "augment" in own:  # counts as augmentation, and replaces ours
        options["augment"] = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0, "jitter": 0.0}
    metrics, named = _named_metrics(options.pop("metrics", None) or {}, task, faults, outputs)
    if metrics and (task.per_token or isinstance(task, SeveralTasks)):
        faults.append(f"metrics: they are for one target per sample, and the task is {task.words}")
    functions: dict[str, Any] = dict(named)
    lower = {name for name, metric in named.items() if metric.lower}
    for name, value in metrics.items():
        function, best = value if isinstance(value, tuple) and len(value) == 2 else (value, _direction(value))
        if not callable(function) or best not in BEST:
            faults.append(f"metrics: {name!r} is {value!r}; give a function, or (function, 'min') where the lowest value is the best")
        elif inspect.isclass(function):
            faults.append(f"metrics: {name!r} is the class {function.__name__}; give a function, or an object of it")
        elif hasattr(function, "_score_func"):
            inner = f"sklearn.metrics.{getattr(function._score_func, '__name__', '…')}"
            faults.append(f"metrics: {name!r} is a scorer, which scikit-learn calls with an estimator; give its function, {inner}")
        elif not str(name).strip():
            faults.append("metrics: a name is empty")
        elif name in {*task.monitors, *NO_METRICS, "loss", "majority"}:
            faults.append(f"metrics: the name {name!r} is taken; choose another")
        else:
            functions[str(name)] = function
            lower |= {str(name)} if BEST[best] else set()
    on_epoch = options.pop("on_epoch", None)
    if on_epoch is not None and not callable(on_epoch):
        faults.append(f"on_epoch is {on_epoch!r}; give a function that takes one line of the history")
    trackers = options.pop("log_with", None)
    log_with = () if trackers is None else tuple(trackers) if isinstance(trackers, list | tuple) else (trackers,)
    return OwnParts(metrics=functions, lower=frozenset(lower), log_with=log_with, on_epoch=on_epoch, **own)


def _names_only(options: dict[str, Any]) -> list[str]:
    """Return the faults of an optimizer or a schedule that is no name, and remove it from the options, in place."""
    faults = []
    for key, remedy in (("optimizer", "'sgd', with optimizer_options={'momentum': 0.9}"), ("schedule", "'cosine'")):
        value = options.get(key)
        if value is not None and not isinstance(value, str):
            del options[key]
            kind = f"the class {value.__name__}" if inspect.isclass(value) else f"an object of type {type(value).__name__}"
            faults.append(f"{key} is {kind}; the run makes its own, so give a name, such as {remedy}; see docs/learning-rates.md")
    return faults


def _named_metrics(metrics: Any, task: Task, faults: list[str], outputs: int | None) -> tuple[Mapping[str, Any], dict[str, Metric]]:
    """Return the functions among the wanted metrics, and those that are given by name."""
    if isinstance(metrics, Mapping):
        return metrics, {}
    if not (isinstance(metrics, str | list | tuple | set) and all(isinstance(name, str) for name in metrics)):
        kind = type(metrics).__name__
        faults.append(f"metrics is {kind}; give names, such as ['mcc'], or a mapping from a name to a function, such as {{'kappa': f}}")
        return {}, {}
    found: dict[str, Metric] = {}
    faults += refusals(lambda: found.update(find_metrics(task.name, metrics, outputs)))
    return {}, found


def _parameters(part: Any) -> list[Any]:
    return list(part.parameters()) if callable(getattr(part, "parameters", None)) and not inspect.isclass(part) else []


def own_metrics(
    metrics: Mapping[str, Callable[..., Any] | Metric],
    task: Task,
    logits: Array,
    targets: Array,
    *,
    thresholds: Sequence[float] | None = None,
    undefined: set[str] | None = None,
) -> dict[str, float]:
    """Return the values of the user's own metrics; NaN and infinite ones are left out, with a warning.

    A function is called with the targets and the probabilities ``(n, classes)``, for a regression with the outputs ``(n,)`` or
    ``(n, outputs)``. If a function of scikit-learn raises for these, the alternatives are tried: for two classes the
    probability of the second, then the predicted classes.

    Args:
        metrics: Functions by name.
        task: The task.
        logits: ``(n, outputs)``.
        targets: One row per sample.
        thresholds: Probability above which each label is predicted; None for one half.
        undefined: Names that were warned about before; extended in place.

    Raises:
        OwnPartError: If a function fails or returns no number, with its error.
    """
    values: dict[str, float] = {}
    for name, function in metrics.items():
        if isinstance(function, Metric):
            values[name] = function.value(task, logits, targets, thresholds)
            continue
        errors: list[Exception] = []
        forms = _forms(task, logits, thresholds)
        for form in forms if _is_of_scikit_learn(function) else forms[:1]:
            try:
                values[name] = _number(function(targets, form))
                break
            except Exception as error:
                errors.append(error)
        else:
            last = errors[-1]  # for predicted classes, which most functions of scikit-learn take
            given = f"; it is given arrays of numpy, targets {targets.shape} and then predictions {forms[0].shape}"
            hint = given if isinstance(last, TypeError) and not _is_of_scikit_learn(function) else ""
            if targets.dtype.kind == "f" and np.isnan(targets).any():
                hint += " (the targets have NaN where labels are missing)"
            raise OwnPartError.of(f"metrics: {name!r}", last, hint) from last
    undefined = set() if undefined is None else undefined
    for name, value in list(values.items()):
        if not math.isfinite(value):
            del values[name]
            if name not in undefined:
                log.warning("metrics: %r is %s on these data and is left out", name, value)
            undefined.add(name)
    return values


def _number(value: Any) -> float:
    """Return the value of a metric, a number or an array or tensor of one; a ``TypeError`` names anything else."""
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
        raise TypeError(f"it returned {type(value).__name__}{shape}, and a metric is one number") from error


def _forms(task: Task, logits: Array, thresholds: Sequence[float] | None) -> list[Array]:
    """Return the predictions that a metric may take, the most informative first."""
    scores = task.probabilities(np.asarray(logits, dtype=np.float64))
    if scores is None:
        return [np.asarray(logits[:, 0] if logits.shape[1] == 1 else logits)]
    column = [scores[:, 1]] if task.exclusive and scores.shape[1] == 2 else []
    cut = USUAL if thresholds is None else np.asarray(thresholds)
    chosen = scores.argmax(1) if task.exclusive else (scores > cut).astype(np.int64)
    return [scores, *column, np.asarray(chosen)]


def _direction(function: Any) -> str:
    """Return whether the lowest or the highest value of a metric is the best, by scikit-learn's names (``_loss``, ``_error``)."""
    name = str(getattr(getattr(function, "func", function), "__name__", ""))
    return "min" if _is_of_scikit_learn(function) and name.endswith(("_loss", "_error")) else "max"


def _is_of_scikit_learn(function: Any) -> bool:
    inner = getattr(function, "func", function)  # unwraps a functools.partial
    return str(getattr(inner, "__module__", "")).partition(".")[0] == "sklearn"


def name_of(function: Any) -> str:
    """Return the name of a function or an object of the user's for a record."""
    if hasattr(function, "func"):  # functools.partial
        return f"{name_of(function.func)}{function.args}{function.keywords}"
    name = getattr(function, "__qualname__", None)
    if name is None:
        settings = {key: value for key, value in sorted(getattr(function, "__dict__", {}).items()) if isinstance(value, PLAIN)}
        return f"{type(function).__module__}.{type(function).__qualname__}{settings or ''}"
    held = []
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # an empty cell, of a name that is defined later
            held.append(cell.cell_contents)
    closed = [value for value in held if isinstance(value, PLAIN)]
    return f"{function.__module__}.{name}{closed or ''}"
