"""Pooled features of a backbone for all rows, and probabilities that a probe on them gives to rows that it was not fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from zoo.data.splits.folds import folds_of
from zoo.data.table import Array, Table
from zoo.engine.cache.feature_memo import feature_memo, model_key, table_key
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.inference.output_blocks import run_blocks
from zoo.engine.solved.fitted_layers import Rows
from zoo.engine.solved.head_solver import Solution, solve
from zoo.models.task_model import TaskModel
from zoo.select.audit.reading.kept import Arrays, Kept, Report, blockwise

MOST_CHOSEN = 5000  # rows on which the penalty of the probe is chosen


def features_of(model: TaskModel, table: Table, options: InferenceOptions, kept: Kept, report: Report) -> Array:
    """Return pooled features ``(n, dim)``; NaN for a row that could not be read.

    They are shared with other checks in this process and, in blocks, with later ones in the same folder.
    """
    prefix, samples = model_key(model, len(model.groups)), table_key(table)
    key = f"check/{prefix}/{samples}/{options}" if prefix and samples else ""
    values: Array | None = feature_memo().get(key)
    if values is None:

        def block(some: Table) -> Arrays:
            parts: list[Array] = []
            run_blocks(model, some, model.embed_batch, options, each=lambda one: parts.append(one.outputs), poll=lambda: report(0))
            width = max(part.shape[1] for part in parts)
            filled = [part if part.shape[1] == width else np.full((len(part), width), np.nan, np.float32) for part in parts]
            return {"features": np.concatenate(filled)}

        what = f"features {prefix} {options}" if prefix else ""
        values = np.asarray(blockwise(table, what, block, kept, report)["features"])
        feature_memo().put(key, values, values.nbytes)
    return values


def out_of_fold(features: Array, table: Table, *, seed: int, poll: Report) -> Array:
    """Return probabilities ``(n, classes)`` of the optimum of a linear head, for each row from folds without it and without its group.

    Everything, the scale of the features too, comes from the rows of the other folds. Rows of a class that is in one fold only are
    NaN.

    Args:
        features: Finite features ``(n, dim)`` of the rows.
        table: Single-label rows.
        seed: Seed of the folds.
        poll: Called now and then; may raise to stop.
    """
    targets, values = torch.as_tensor(table.targets), torch.from_numpy(features)
    classes, cpu = len(table.classes), torch.device("cpu")
    found = np.full((len(table), classes), np.nan, dtype=np.float64)

    def fitted(rows: Array, *, like: Solution | None) -> Solution:
        some = table.select(rows)
        mine = targets[torch.from_numpy(rows)]

        def loss(logits: torch.Tensor, chosen: Rows) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(logits, mine[torch.from_numpy(chosen)], reduction="sum")

        chosen: dict[str, Any] = {} if like is None else {"penalty": like.penalty, "standardized": like.standardized}
        folds = folds_of(some, seed) if like is None else ()
        return solve(values[torch.from_numpy(rows)], classes, loss, folds, device=cpu, poll=lambda: poll(0), **chosen)

    for train, held in folds_of(table, seed):
        sample = np.random.default_rng(seed).permutation(train)[:MOST_CHOSEN]
        solved = fitted(train, like=fitted(np.sort(sample), like=None))
        assert solved.bias is not None, "the layer has a bias"
        logits = values[torch.from_numpy(held)] @ solved.weight.T + solved.bias
        found[held] = logits.double().softmax(1).numpy()
        poll(0)
    return found
