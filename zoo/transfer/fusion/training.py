"""Training what fuses the parts, and the parts through it, with the engine's own phases."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.data.table import Table
from zoo.engine.options.recipe import Recipe
from zoo.engine.rundir.run_folder import Run
from zoo.engine.solved.solved_head import SolvedHead
from zoo.models.task_model import TaskModel
from zoo.transfer.fusion.augmentation import SWITCHES, USUAL, is_augmented, without_mixtures
from zoo.transfer.fusion.model import Fusion
from zoo.transfer.fusion.network import make_network, packed_table, tokens_needed
from zoo.transfer.fusion.options import recipe_for
from zoo.transfer.fusion.parts import Parts
from zoo.transfer.fusion.solved import Features, HeadData, joined, part_scores, score, solve_head, some_rows, with_dropped

Array = npt.NDArray[Any]


def solve_fusion(fusion: Fusion, features: Features, data: HeadData, held: Parts | None, *, dropout: float, compare: bool) -> None:
    """Give a fusion the solved head on all parts beside each other, and the scores of each part, in place."""
    kept, more = with_dropped(features, dropout, data.seed)
    solved = solve_head(joined(more, fusion.blocks), replace(data, kept=kept), held_out=compare and held is None)
    assert solved.bias is not None, "the layer has a bias"
    fusion.weight, fusion.bias = solved.weight, solved.bias
    if not compare:
        return
    if held is not None:
        others = fusion.features(held)
        found = part_scores(features, fusion.blocks, data, held=(others, held.labels))
        together = joined(others, fusion.blocks) @ solved.weight.T + solved.bias
        fusion.scores = found | {fusion.how: score(together, held.labels, data)}
    elif solved.held_out is not None:
        found = part_scores(features, fusion.blocks, data)
        fusion.scores = found | {fusion.how: score(solved.held_out[: len(data.kept)], data.labels, data)}


def train_fusion(
    fusion: Fusion,
    parts: Parts,
    features: Features,
    data: HeadData,
    held: Parts | None,
    *,
    tune: str,
    dropout: float,
    training: Mapping[str, Any],
    compare: bool,
) -> None:
    """Give a fusion a trained network, the scores of each part, and tuned models of the parts, in place.

    Args:
        fusion: The fusion, with its blocks.
        parts: The training rows.
        features: Their features.
        data: Their labels.
        held: The validation rows; None takes the first fold of the training rows.
        tune: What of the backbones trains.
        dropout: Share of the rows of a batch without one of their parts.
        training: Options of ``TaskModel.fit``.
        compare: Whether the parts are compared.
    """
    fusion.tokens = tokens_needed(fusion.models, parts)
    given: dict[str, Any] = {"tokens": fusion.tokens, "dropout": dropout, "task": fusion.task, "classes": fusion.classes}
    network = make_network(fusion.models, how=fusion.how, blocks=fusion.blocks, **given, seed=data.seed)
    table, split = packed_table(fusion.models, parts, fusion.tokens), _held_out(data) if held is None else None
    rows = None if split is None else split[1]
    # Without the held-out rows, which judge the epochs and the scores.
    own = (features, data) if split is None else some_rows(features, data, split[0])
    if fusion.how == "concatenate":
        solve_fusion(fusion, *own, None, dropout=dropout, compare=False)
        SolvedHead(fusion.weight, fusion.bias, 0.0, 0.0).copy_to(network.head)
    if held is not None:
        valid: Table | bool = packed_table(fusion.models, held, fusion.tokens)
    else:
        valid = table.select(rows) if rows is not None else False
    found = {}
    if compare:
        others = None if held is None else (fusion.features(held), held.labels)
        found = part_scores(features, fusion.blocks, data, rows=rows, held=others, together=True)
    augmented = is_augmented(fusion, parts if split is None else parts.select(split[0]), *own, tune, training)
    recipe = recipe_for(fusion.how, tune, augmented=augmented)
    run = _fit(network, table if split is None else table.select(split[0]), valid, recipe, data.seed, training)
    if found and fusion.monitor in run.metrics:
        name = fusion.how if tune == "none" else f"{fusion.how}, {tune} tuned"
        fusion.scores = found | {name: float(run.metrics[fusion.monitor])}
    fusion.network = network.eval()
    if tune != "none":
        fusion.models = {name: _with_values(model, network, name) for name, model in fusion.models.items()}


def _held_out(data: HeadData) -> tuple[Array, Array] | None:
    """Return the rows that are fitted and those of the first fold, which are held out; None where none can be.

    A class that only held-out rows have would not be learned, so they are fitted too.
    """
    folds = data.folds()
    if not folds:
        return None
    (fitted, held), targets, groups = folds[0], np.asarray(data.labels.targets), data.labels.groups
    members = targets > 0 if targets.ndim > 1 else targets[:, None] == np.arange(len(data.labels.classes))
    held = held[~members[held][:, ~members[fitted].any(0)].any(1)]
    others = np.setdiff1d(np.arange(len(targets)), held)
    if groups is not None:  # a group stays on one side
        taken = {groups[other] for other in others}
        held = np.array([row for row in held if groups[row] not in taken], dtype=np.int64)
    return (np.setdiff1d(np.arange(len(targets)), held), held) if len(held) else None


def _with_values(model: TaskModel, network: TaskModel, name: str) -> TaskModel:
    """Return a copy of the model of a part with the tuned values."""
    tuned, backbones = copy.deepcopy(model), network.backbone.towers.backbones  # type: ignore[union-attr]  # a FusedBackbone
    tuned.backbone.load_state_dict(backbones[name].state_dict())  # type: ignore[union-attr,index]
    return tuned


def _fit(model: TaskModel, table: Table, valid: Table | bool, recipe: Recipe, seed: int, training: Mapping[str, Any]) -> Run:
    """Train a network of packed rows, in place; without a folder of its own the run leaves none."""
    augmented = any(phase.augment for phase in recipe.phases)
    chosen = {name: value for name, value in training.items() if name != "augment" and (augmented or name not in SWITCHES)}
    given: dict[str, Any] = {
        "recipe": recipe,
        "augment": without_mixtures(training.get("augment") or USUAL) if augmented else "none",
    } | chosen
    if given.get("out") is not None:
        return model.fit(table, valid, seed=seed, **given)
    with tempfile.TemporaryDirectory() as folder:
        return model.fit(table, valid, seed=seed, **given | {"out": Path(folder) / "run"})
