"""Training what fuses the parts, and the parts through it, with the engine's own phases."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zoo.data.table import Table
from zoo.engine.inference.all_outputs import run_whole
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.inference.metrics import compute_metrics
from zoo.engine.options.model_selection import Best
from zoo.engine.options.recipe import Recipe
from zoo.engine.rundir.run_folder import Run, write_run
from zoo.engine.runtime.scratch import scratch_folder
from zoo.engine.solved.solved_head import SolvedHead
from zoo.engine.train.finalize import kept_before_tuning
from zoo.engine.train.train_state import values_of
from zoo.models.own_names import HEAD_OF_PART
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.transfer.fusion.augmentation import SWITCHES, USUAL, is_augmented, without_mixtures
from zoo.transfer.fusion.model import PASSES, Fusion
from zoo.transfer.fusion.network import make_network, packed_table, tokens_needed
from zoo.transfer.fusion.options import recipe_for
from zoo.transfer.fusion.parts import Parts
from zoo.transfer.fusion.solved import Block, Features, HeadData, joined, part_scores, score, solve_head, some_rows, with_dropped
from zoo.util.numbers import score_text

log = logging.getLogger("zoo")
Array = npt.NDArray[Any]

KEPT = "kept_start"  # key in run.json of the line that says so
NEARLY_EQUAL = 0.02  # spread of features over the size of their mean, below which a step of tuning moves them more than rows differ


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
    start = _Start.of(network, valid, _passes(fusion, training)) if fusion.how == "concatenate" and isinstance(valid, Table) else None
    run = _fit(network, table if split is None else table.select(split[0]), valid, recipe, data.seed, training)
    kept = _kept_start(fusion, network, run, valid, start, tune)
    if found and fusion.monitor in run.metrics:
        # Epochs before tuning that were kept are what the run's metrics are of.
        name = fusion.how if tune == "none" or (kept and start is None) else f"{fusion.how}, {tune} tuned"
        fusion.scores = found | {name: float(run.metrics[fusion.monitor])}
    if kept:
        fusion.verdict = f"{kept}{hint_of(fusion.blocks)}"
        log.warning("%s", fusion.verdict)
    fusion.network = network.eval()
    if tune != "none" and not kept:
        fusion.models = {name: _with_values(model, network, name) for name, model in fusion.models.items()}


def _kept_start(fusion: Fusion, network: TaskModel, run: Run, valid: Table | bool, start: _Start | None, tune: str) -> str:
    """Return a line where tuning did not improve on what it began with, which the network and the run's folder then have; else nothing."""
    if start is not None and isinstance(valid, Table):
        path = run.dir / "run.json"  # which is gone where the run had no folder of its own
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if KEPT in record:  # the run was finished before, and its folder has the start
            return str(record[KEPT])
        monitor = run.monitor if run.monitor in start.metrics else fusion.monitor  # else one of the user's own
        kept = start.kept_if_better(network, valid, monitor, tune)
        if kept and record:
            network.save(run.dir, overwrite=True)
            write_run(run.dir, record | {KEPT: kept})
        return kept
    return _kept_before(run, fusion.task) if tune != "none" else ""


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
    tuned.note_random_head(HEAD_OF_PART)  # also of one that was trained, on features that are no more
    tuned.origins, tuned.trained_on = (*model.origins, *network.origins[-1:]), (*model.trained_on, *network.trained_on)
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
    with scratch_folder() as folder:
        return model.fit(table, valid, seed=seed, **given | {"out": folder / "run"})


@dataclass(frozen=True)
class _Start:
    """What a network was before its training.

    Attributes:
        values: Its parameters and buffers.
        origins: The steps in which they came about.
        metrics: Those of the task on the rows that judge the epochs.
        passes: Options of a pass, such as the device.
    """

    values: Mapping[str, Tensor]
    origins: tuple[Any, ...]
    metrics: Mapping[str, float]
    passes: Mapping[str, Any]

    @classmethod
    def of(cls, network: TaskModel, valid: Table, passes: Mapping[str, Any]) -> _Start:
        """Return the start of a network that a solved head was given."""
        return cls(values_of(network), network.origins, _measured(network, valid, passes), passes)

    def kept_if_better(self, network: TaskModel, valid: Table, monitor: str, tune: str) -> str:
        """Give a trained network its start again, in place, unless it is better on the rows that judge the epochs.

        Args:
            network: The network.
            valid: The rows.
            monitor: The metric that decides; ties go to the lower loss, then to the start.
            tune: What was trained, for the message.

        Returns:
            One line that says so; empty where the trained values stay.
        """
        found = _measured(network, valid, self.passes)
        best = Best(monitor, lower=monitor in find_task(network.task).lower_is_better)
        best.update(1, self.metrics)
        if best.update(2, found) or not best.epoch:
            return ""
        network.load_state_dict(dict(self.values))
        network.origins, network.thresholds = self.origins, None  # both of what was tuned
        before, after = self.metrics[monitor], found.get(monitor, float("nan"))
        return (
            f"kept: the start, a solved head on the backbones as they were, {monitor} {score_text(monitor, before)} on the held-out rows; "
            f"tune={tune!r} did not improve on it ({score_text(monitor, after)})"
        )


def _passes(fusion: Fusion, training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a pass on the device of a training."""
    given = [*fusion.options.items(), *((name, training.get(name)) for name in ("workers", "device", "precision"))]
    return {name: value for name, value in given if name in PASSES and name != "quiet" and value is not None}


def _measured(network: TaskModel, valid: Table, passes: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of the task on labelled rows."""
    outputs = run_whole(network, valid, network, InferenceOptions(**passes)).values
    return compute_metrics(find_task(network.task), outputs, np.asarray(valid.targets), valid.classes)


def _kept_before(run: Run, task: str) -> str:
    """Return which phase the kept epoch of a run is from where later phases did not improve on it; else an empty string."""
    best = Best(run.monitor, lower=run.monitor in find_task(task).lower_is_better, epoch=run.kept)
    return kept_before_tuning(run.history, best)


def hint_of(blocks: Mapping[str, Block]) -> str:
    """Return what to do about backbones whose features hardly differ between rows, as those of random values; else an empty string."""
    spreads = {name: float(block.scale / block.mean.norm().clamp(min=1e-12)) for name, block in blocks.items() if len(block.mean) > 1}
    told = [
        f"those of the {name} backbone by {100 * spread:.2g} % of their size" for name, spread in spreads.items() if spread < NEARLY_EQUAL
    ]
    if not told:
        return ""
    return (
        f". Features hardly differ between rows, {' and '.join(told)}, as where values are random, and tuning moves them by more: "
        "fit that backbone alone first and give fuse() the model, or give it weights"
    )
