"""Evidence on a candidate of a choice: validators of its predictions for the target, and its accuracy on the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from zoo.data.table import Array, Table
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.options.config import Config
from zoo.engine.solved.fitted_layers import Rows
from zoo.engine.solved.head_solver import solve
from zoo.models.heads import MLPHead
from zoo.models.task_model import TaskModel
from zoo.select.audit.reading.features import features_of
from zoo.select.audit.reading.kept import Kept
from zoo.transfer.domain.fitting import has_units
from zoo.transfer.domain.validators import (
    classes_in_use,
    entropies,
    infomax,
    informations,
    neighbour_entropies,
    softmax,
    spread_rows,
    weighted_risk,
)

MOST = 2000  # rows of a domain that the density ratio is fitted on
LARGEST_RATIO = 100.0


class Outputs(NamedTuple):
    """Features and logits of a table.

    Attributes:
        features: What the last layer reads, ``(n, dim)``.
        logits: ``(n, classes)``.
    """

    features: Array
    logits: Array


@dataclass(frozen=True)
class Evidence:
    """What speaks for a candidate; all but the first two are of the target, without its labels.

    Attributes:
        accuracy: On held-out samples of the source.
        error: Standard error of the accuracy.
        infomax: Mutual information of inputs and predictions in nats; high is good.
        entropy: Mean entropy in nats; low is good.
        snd: Soft neighbourhood density; high is good.
        variety: Classes in use in the predictions but one, over those of the source; far below 1 where predictions have collapsed.
        dev: Deep embedded validation, an estimate of the error rate; low is good.
        dev_error: Its standard error.
        dev_samples: Number of equally weighted samples of the source that the risk is worth; below about ten it says little.
        each: Values by sample ``(n,)``, for paired comparisons of two candidates: ``right``, 1 for each held-out sample of the source that
            is predicted rightly, else 0, and ``infomax``, ``entropy`` and ``snd`` of samples of the target, of which those are the means.
    """

    accuracy: float
    error: float
    infomax: float
    entropy: float
    snd: float
    variety: float
    dev: float
    dev_error: float
    dev_samples: float
    each: Mapping[str, Array] = field(default_factory=dict, compare=False, repr=False)


def table_outputs(model: TaskModel, table: Table, config: Config) -> Outputs:
    """Return the features and logits of a table; features of an unchanged backbone are computed once in a process."""
    how = InferenceOptions(device=config.device, precision=config.precision, workers=config.workers)
    pooled = torch.from_numpy(features_of(model, table, how, Kept(None), lambda _: None))
    device, training = next(model.parameters()).device, model.training
    model.eval()
    with torch.no_grad():
        pooled = pooled.to(device)
        logits = model.pooled_logits(pooled)
        features = model.head.hidden_units(pooled) if isinstance(model.head, MLPHead) and has_units(model) else pooled
    model.train(training)
    return Outputs(features.float().cpu().numpy(), logits.float().cpu().numpy())


def evidence(train: Outputs, valid: Outputs, truth: Array, target: Outputs, *, seed: int) -> Evidence:
    """Return the evidence on a model.

    Args:
        train: Training samples of the source.
        valid: Held-out samples of the source.
        truth: Their classes.
        target: Samples of the target.
        seed: Seed of the rows that the density ratio is fitted on.
    """
    probabilities, others = softmax(valid.logits), softmax(target.logits)
    each = {"infomax": informations(others), "entropy": entropies(others), "snd": neighbour_entropies(spread_rows(others))}
    wrong = (probabilities.argmax(1) != truth).astype(np.float64)
    accuracy = float(1 - wrong.mean())
    uses = [classes_in_use(one) for one in (others, probabilities)]
    weights = density_ratio(train.features, target.features, valid.features, seed=seed)
    dev, dev_error = weighted_risk(wrong, weights)
    return Evidence(
        accuracy=accuracy,
        error=float(np.sqrt(max(accuracy * (1 - accuracy), 1 / len(truth)) / len(truth))),
        infomax=infomax(others),
        entropy=float(each["entropy"].mean()),
        snd=float(each["snd"].mean()),
        variety=(uses[0] - 1) / max(uses[1] - 1, 1e-9),
        dev=dev,
        dev_error=dev_error,
        dev_samples=float(weights.sum() ** 2 / max((weights**2).sum(), 1e-12)),
        each=each | {"right": 1 - wrong},
    )


def density_ratio(source: Array, target: Array, rows: Array, *, seed: int) -> Array:
    """Return how much more likely rows are in the target than in the source, at most ``LARGEST_RATIO``, by logistic regression.

    Args:
        source: Features of the source ``(n, dim)``.
        target: Features of the target ``(m, dim)``.
        rows: Features ``(k, dim)``.
        seed: Seed of the rows that it is fitted on.
    """
    rng = np.random.default_rng(seed)
    sides = [side[rng.permutation(len(side))[:MOST]] for side in (source, target)]
    values = torch.from_numpy(np.concatenate(sides))
    domains = torch.from_numpy(np.repeat([0, 1], [len(side) for side in sides]))

    def loss(logits: torch.Tensor, chosen: Rows) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, domains[torch.from_numpy(chosen)], reduction="sum")

    solved = solve(values, 2, loss, (), device=torch.device("cpu"))
    assert solved.bias is not None, "the layer has a bias"
    logits = (torch.from_numpy(rows) @ solved.weight.T.float() + solved.bias.float()).double().numpy()
    ratio = np.exp(np.clip(logits[:, 1] - logits[:, 0], -30, 30)) * len(sides[0]) / len(sides[1])
    return np.asarray(np.minimum(ratio, LARGEST_RATIO))
