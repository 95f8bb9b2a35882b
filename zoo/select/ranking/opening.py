"""The data of a ranking: opened for the kind of input that they are, in parts of growing size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.open import open_train_valid
from zoo.data.sources.folders import check_exists
from zoo.data.sources.read import kind_of
from zoo.data.table import Table, joined_groups
from zoo.data.unreadable import drop_corrupt
from zoo.declare import Image, Inputs
from zoo.engine.options.config import Config
from zoo.errors import DataError, HoldOutError, OptionError, fault_list
from zoo.models.backbone import Backbone
from zoo.select.ranking.candidates import MODALITIES, named, priors

SHARES = (0.25, 0.5, 1.0)  # of the training samples, one per round of halving
LEAST = 200  # samples of the first round
Tables = tuple[Table, Table | None]


def open_ranked(data: Any, valid: Any, wanted: Any, *, task: str, config: Config) -> tuple[Tables, list[Backbone], dict[str, str]]:
    """Open data, and return them with the candidates that read them, and why others do not.

    Args:
        data: Any source with labels.
        valid: Another one, None or False.
        wanted: Names and globs of candidates, or None for the prior list of the kind of data.
        task: Name of the task.
        config: Has the options of opening.

    Raises:
        DataError: If no candidate reads them, with the reason per kind of input.
        UnknownBackboneError: If a name matches nothing.
    """
    if isinstance(data, str | os.PathLike):
        check_exists(Path(data))
    chosen = None if wanted is None else named(wanted)
    kinds = MODALITIES if chosen is None else tuple(dict.fromkeys(backbone.spec.modality for backbone in chosen))
    faults: dict[str, Exception] = {}
    for kind in kinds:
        try:
            backbones = priors(kind) if chosen is None else [one for one in chosen if one.spec.modality == kind]
            tables = _opened(data, valid, backbones[0].spec.inputs, task=task, config=config)
        except HoldOutError:
            raise
        except (DataError, OptionError, LookupError) as error:
            faults[kind] = error
            continue
        others = [] if chosen is None else [one for one in chosen if one.spec.modality != kind]
        return tables, backbones, {one.spec.name: f"it reads {one.spec.modality}s, and the data are {kind}s" for one in others}
    if len(faults) == 1:
        raise next(iter(faults.values()))
    lines = [f"as {kind}s: {error}" for kind, error in faults.items()]
    raise DataError(fault_list("no candidate reads these data:", lines, "Name candidates of one kind of input"))


def _opened(data: Any, valid: Any, inputs: Inputs, *, task: str, config: Config) -> Tables:
    channels = inputs.channels if isinstance(inputs, Image) else 3
    opening: dict[str, Any] = {"task": task, "reads": kind_of(inputs, task), "channels": channels, **config.opening}
    try:
        tables = open_train_valid(data, valid, **opening)
    except HoldOutError:  # nothing can be held out to judge tuning; the probe divides by folds
        if valid is not None:
            raise
        tables = open_train_valid(data, False, **opening)
    if config.on_corrupt != "skip":
        return tables
    window = config.window or getattr(inputs, "window", None)  # once for all candidates, as the folds are made over what is left
    return drop_corrupt(*tables, max_corrupt=config.max_corrupt, window=window, channels=channels if isinstance(inputs, Image) else 0)


def together(tables: Sequence[Table]) -> Table:
    """Return the rows of several tables of the same classes as one."""
    first = tables[0]
    joined = joined_groups([(table.source, len(table), table.groups) for table in tables])
    groups = None if joined is None else tuple(joined)
    targets = np.concatenate([np.asarray(table.targets) for table in tables])
    return replace(first, inputs=[item for table in tables for item in range(len(table))], targets=targets, groups=groups, splits=None)


def in_parts(train: Table, valid: Table | None, *, seed: int, halving: bool) -> list[list[Table]]:
    """Return the tables that each round adds: without halving all at once, else growing shares of the training samples.

    The order is drawn once, by class in turn, so that each part has all classes; a group may lie in several parts, as the folds are
    made over all parts so far.
    """
    everything = [table for table in (train, valid) if table is not None]
    if not halving or len(train) < 2 * LEAST:
        return [everything]
    order = _spread(train, seed)
    ends = sorted({min(len(train), max(LEAST, round(len(train) * share))) for share in SHARES})
    parts = [[train.select(np.sort(order[start:end]))] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    parts[-1] += everything[1:]
    return parts


def _spread(table: Table, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return all rows, shuffled such that every beginning has the classes in their shares."""
    order = np.random.default_rng(seed).permutation(len(table))
    targets = np.asarray(table.targets)
    if targets.ndim != 1 or not table.classes:
        return order
    places = np.empty(len(table))
    for label in np.unique(targets):
        rows = order[targets[order] == label]
        places[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.argsort(places, kind="stable")
