"""The metrics of each built-in task by name: those that are always measured, and those on request."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from zoo.errors import OptionError, did_you_mean, fault_list
from zoo.tasks.find import find_task
from zoo.tasks.task import Task
from zoo.trust import class_metrics, label_metrics, number_metrics
from zoo.trust.outcome import Array, Outcome, outcome_of

Compute = Callable[[Outcome, Array], Array]
ALL = "all"
_TOP = re.compile(r"top_([1-9]\d{0,3})")


@dataclass(frozen=True)
class Metric:
    """A metric of a task.

    Attributes:
        name: Its name.
        meaning: What it is, in one sentence.
        compute: Function of an outcome and weights ``(draws, n)`` to ``(draws,)``; None for one that ``Task.metrics`` always gives.
        lower: Whether the lowest value is the best.
        drawn: Whether confidence intervals are given; those of a biased figure would mislead.
        ends: Its least and its largest value.
    """

    name: str
    meaning: str
    compute: Compute | None = None
    lower: bool = False
    drawn: bool = True
    ends: tuple[float, float] = (0.0, 1.0)

    def values(self, outcome: Outcome, w: Array) -> Array:
        """Return the metric for each row of weights ``(draws, n)``, NaN where it is undefined."""
        assert self.compute is not None, f"{self.name} is computed with the metrics of the task"
        if not (len(outcome.logits) and np.isfinite(outcome.logits).all()):
            return np.full(len(w), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.compute(outcome, w)

    def value(self, task: Task, logits: Array, targets: Array, thresholds: Sequence[float] | None = None) -> float:
        """Return the metric of one set of samples, NaN where it is undefined."""
        return float(self.values(outcome_of(task, logits, targets, thresholds), np.ones((1, len(targets))))[0])


_POSITIVE, _SIGNED, _EXPLAINED = (0.0, math.inf), (-1.0, 1.0), (-math.inf, 1.0)  # ends of values
ECE = "expected calibration error: how far probabilities are from frequencies, in 15 bins of equal width (Guo et al. 2017)"

CLASSES = (
    Metric("loss", "log loss, the cross entropy of the probabilities", lower=True, ends=_POSITIVE),
    Metric("accuracy", "share of samples whose likeliest class is right"),
    Metric("balanced_accuracy", "mean over the classes of the share of their samples that is right (macro recall)"),
    Metric("macro_f1", "mean F1 over the classes that occur in the labels or the predictions"),
    Metric("auroc", "area under the ROC curve; of more than two classes the mean of each against the rest"),
    Metric("majority", "accuracy of always answering the most frequent class, for comparison"),
    Metric("micro_f1", "F1 over all samples; with one class per sample this is the accuracy", class_metrics.micro_f1),
    Metric("weighted_f1", "mean F1 over the classes, weighted by their samples", class_metrics.weighted_f1),
    Metric(
        "average_precision",
        "area under the precision-recall curve, of two classes for the positive one, else the mean of each against the rest",
        class_metrics.average_precision,
    ),
    Metric("kappa", "Cohen's kappa: agreement beyond chance", class_metrics.kappa, ends=_SIGNED),
    Metric(
        "quadratic_kappa",
        "Cohen's kappa of ordered classes: mistakes count by their squared distance",
        class_metrics.quadratic_kappa,
        ends=_SIGNED,
    ),
    Metric("mcc", "Matthews correlation coefficient", class_metrics.mcc, ends=_SIGNED),
    Metric(
        "brier",
        "squared error of the probabilities: of two classes of the second, else the sum over them",
        class_metrics.brier,
        True,
        ends=(0.0, 2.0),
    ),
    Metric("ece", ECE, class_metrics.calibration_error, True, drawn=False),
    Metric("aurc", "area under the risk-coverage curve: mean error among the most confident share", class_metrics.risk_coverage_area, True),
)
TOP = Metric("top_K", "whether the right class is among the K likeliest, such as `top_5`")
LABELS = (
    Metric("loss", "binary cross entropy, the mean over labels", lower=True, ends=_POSITIVE),
    Metric("map", "mean over the labels of the average precision"),
    Metric("macro_f1", "mean F1 over the labels"),
    Metric("micro_f1", "F1 over all labels of all samples"),
    Metric("auroc", "mean over the labels of the area under the ROC curve"),
    Metric("weighted_f1", "mean F1 over the labels, weighted by their positives", label_metrics.weighted_f1),
    Metric("exact_match", "share of samples of which every label is right", label_metrics.exact_match),
    Metric("label_accuracy", "share of single labels that are right (1 minus the Hamming loss)", label_metrics.label_accuracy),
    Metric("brier", "mean squared error of the probabilities of all labels", label_metrics.brier, True),
    Metric("ece", ECE, label_metrics.calibration_error, True, drawn=False),
)
NUMBERS = (
    Metric("mae", "mean absolute error, in the unit of the targets", lower=True, ends=_POSITIVE),
    Metric("rmse", "root of the mean squared error, in the unit of the targets", lower=True, ends=_POSITIVE),
    Metric("r2", "share of the targets' variance that is explained; 0 for always answering their mean", ends=_EXPLAINED),
    Metric("mse", "mean squared error", number_metrics.mse, True, ends=_POSITIVE),
    Metric("median_error", "median absolute error", number_metrics.median_error, True, ends=_POSITIVE),
    Metric("max_error", "largest absolute error", number_metrics.max_error, True, drawn=False, ends=_POSITIVE),
    Metric("mape", "mean absolute error as a share of the target; not where a target is 0", number_metrics.mape, True, ends=_POSITIVE),
    Metric("explained_variance", "as r2, but a constant error does not count", number_metrics.explained_variance, ends=_EXPLAINED),
    Metric("pearson", "correlation of predictions and targets", number_metrics.pearson, ends=_SIGNED),
    Metric("spearman", "correlation of the ranks of predictions and targets", number_metrics.spearman, ends=_SIGNED),
)
WORDS = (
    Metric("loss", "cross entropy by word", lower=True, ends=_POSITIVE),
    Metric("f1", "F1 by entity, as in seqeval"),
    Metric("precision", "share of the predicted entities that are right"),
    Metric("recall", "share of the entities that are found"),
    Metric("accuracy", "share of words that are right"),
    Metric("majority", "accuracy of always answering the most frequent tag, for comparison"),
)
METRICS: Mapping[str, Mapping[str, Metric]] = MappingProxyType(
    {
        task: MappingProxyType({metric.name: metric for metric in metrics})
        for task, metrics in {
            "single-label": CLASSES,
            "multi-label": LABELS,
            "regression": NUMBERS,
            "token-classification": WORDS,
        }.items()
    }
)
LIKELIEST = frozenset({"single-label"})  # tasks with ``top_K``
# Names that other libraries use, and the one here.
SYNONYMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "loss": ("log_loss", "logloss", "nll", "cross_entropy"),
        "accuracy": ("acc",),
        "auroc": ("auc", "roc_auc", "rocauc"),
        "average_precision": ("ap", "pr_auc", "auprc"),
        "map": ("average_precision", "ap", "pr_auc", "auprc"),
        "kappa": ("cohen_kappa", "cohens_kappa"),
        "quadratic_kappa": ("qwk", "quadratic_weighted_kappa"),
        "mcc": ("matthews", "matthews_corrcoef"),
        "brier": ("brier_score", "brier_score_loss"),
        "ece": ("calibration_error", "expected_calibration_error"),
        "macro_f1": ("f1", "f1_macro"),
        "micro_f1": ("f1_micro",),
        "weighted_f1": ("f1_weighted",),
        "balanced_accuracy": ("macro_recall", "recall", "uar"),
        "exact_match": ("accuracy", "subset_accuracy"),
        "label_accuracy": ("hamming", "hamming_loss"),
        "median_error": ("medae", "median_absolute_error"),
        "mae": ("mean_absolute_error",),
        "mse": ("mean_squared_error",),
        "top_5": ("top_k", "top_K", "top5"),
    }
)


def is_share(task: str, metric: str) -> bool:
    """Return whether a metric is a share of the samples, each of them right or wrong: the accuracy of one class per sample, ``top_K``."""
    return task in LIKELIEST and (metric == "accuracy" or _TOP.fullmatch(metric) is not None)


def ends_of(metric: str) -> tuple[float, float]:
    """Return the least and the largest value of a metric of any task; infinite ones for a metric of the user's own.

    Args:
        metric: Its name; of several tasks with that of the task, ``kind/accuracy``.
    """
    name = metric.rpartition("/")[2]
    if _TOP.fullmatch(name):
        return TOP.ends
    found = [known[name].ends for known in METRICS.values() if name in known] or [(-math.inf, math.inf)]
    return min(low for low, _ in found), max(high for _, high in found)


def on_request(task: str) -> list[str]:
    """Return the names of the metrics of a task that are measured on request."""
    return [name for name, metric in METRICS.get(task, {}).items() if metric.compute is not None]


def metric_names(names: str | Iterable[str]) -> list[str]:
    """Return names that are given as a list, or as text with commas."""
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


def find_metrics(task: str, names: str | Iterable[str], outputs: int | None = None) -> dict[str, Metric]:
    """Return the metrics that are asked for and not measured anyway, by name.

    Args:
        task: Name of the task.
        names: Names of the table, ``top_K`` with a number, or ``all``; as a list, or as text with commas.
        outputs: Number of classes, if known.

    Raises:
        OptionError: Naming every name that the task does not have, with the nearest one.
    """
    wanted = metric_names(names)
    known, found, faults = METRICS.get(task, {}), dict[str, Metric](), list[str]()
    for name in wanted:
        if name == ALL:
            found |= {one: known[one] for one in on_request(task)}
        elif name in known:
            found |= {name: known[name]} if known[name].compute is not None else {}
        elif task in LIKELIEST and (match := _TOP.fullmatch(str(name))):
            number = int(match[1])
            found[name] = Metric(name, TOP.meaning, class_metrics.top(number))
            if outputs is not None and number >= outputs:
                faults.append(f"{name!r} is always 1, as the model has {outputs} classes")
        else:
            faults.append(f"there is no metric {name!r}{nearest_metric(str(name), known)}")
    if faults:
        names = ", ".join([*known, *(["top_K"] if task in LIKELIEST else [])]) or "only those of the task's own"
        raise OptionError(
            fault_list(
                f"these metrics are not measured where the task is {find_task(task).words}:",
                faults,
                f"They are: {names}, or {ALL} for all of them.",
            )
        )
    return found


def nearest_metric(name: str, known: Collection[str]) -> str:
    """Return what to add to an unknown name: the name that is used here, or the nearest one; empty if there is none."""
    plain = name.lower().replace("-", "_")
    same = [one for one, others in SYNONYMS.items() if plain in others and (one in known or (one == "top_5" and "mcc" in known))]
    return f" (it is called {same[0]!r} here)" if same else did_you_mean(name, known)
