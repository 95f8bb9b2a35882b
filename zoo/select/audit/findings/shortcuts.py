"""Shortcuts: what is no content of a sample, and yet predicts its label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.sources.cells import is_missing
from zoo.data.splits.folds import folds_of
from zoo.data.table import PIXELS, Array, Table, split_word
from zoo.errors import count, examples
from zoo.select.audit.findings.exact import label_of
from zoo.select.audit.findings.finding import Finding
from zoo.select.audit.reading.kept import Arrays
from zoo.select.audit.reading.sources import Opened
from zoo.tasks.scores import area

STRONG = 0.75  # AUROC of a field, above which it may be a shortcut
STRONG_CONTENT = 0.9  # of the corners, and of the lowest value of a volume, which show a part of the content
ERRORS = 4.0  # standard errors of an AUROC without any relation, that it must exceed 0.5 by
BINS = 20
CORNERS, LOWEST = "corner pixels", "lowest value"
OF_CONTENT = (CORNERS, LOWEST)
TOGETHER = "all together"


def fields_of(data: Opened, facts: Arrays) -> dict[str, Array]:
    """Return what is known of each row beside its content, by name: numbers, or codes of names with -1 where there is none.

    Size, aspect, size and kind of the file, camera or scanner, folder, the values of the corners of an image, shape, spacing and the
    lowest value of a volume (what lies outside of the scanner's circle), and further columns of a table.
    """
    found: dict[str, Any] = {}
    if data.table.reads in PIXELS:
        found |= {"file size": facts["bytes"].astype(float), "kind of file": codes(facts["kind"].tolist())}
        found["camera"] = codes([name or None for name in facts["camera"].tolist()])
    if data.table.reads == "image":
        width, height = facts["width"].astype(float), facts["height"].astype(float)
        found |= {"image size": width * height, "aspect": width / np.maximum(height, 1), CORNERS: facts["corners"].astype(float)}
    if data.table.reads == "volume":
        found |= {"shape": codes(facts["shape"].tolist()), "spacing": np.nan_to_num(facts["spacing"].astype(float))}
        found[LOWEST] = facts["range"][:, 0].astype(float)
    folders = _folders(data.table)
    found |= {"folder": codes(folders)} if folders else {}
    found |= {f"column {name!r}": _column(cells) for name, cells in data.columns.items()}
    return {name: values for name, values in found.items() if len(np.unique(values, axis=0)) > 1}


def _folders(table: Table) -> list[str | None]:
    """Return the folder of each file, without the parts that are the label or the split."""
    if not isinstance(table.inputs, list) or not all(isinstance(item, str) for item in table.inputs) or table.reads not in PIXELS:
        return []
    parents = [Path(item).parts[:-1] for item in table.inputs]
    known = [{label_of(table, row), (table.splits or ())[row]} for row in range(len(table))]
    return [
        "/".join(part for part in parts if part not in own and split_word(part) not in own)
        for parts, own in zip(parents, known, strict=True)
    ]


def _column(cells: Sequence[Any]) -> Array:
    """Return a column as numbers if all its cells are, else as codes."""
    given = [None if is_missing(cell) else cell for cell in cells]
    try:
        numbers = np.asarray([np.nan if cell is None or cell == "" else float(cell) for cell in given])
    except (TypeError, ValueError):
        return codes([None if cell is None else str(cell) for cell in given])
    return numbers if len(np.unique(numbers)) > BINS else codes([None if cell is None else str(cell) for cell in given])


def codes(names: Sequence[str | None]) -> Array:
    """Return a whole number per name, -1 for None."""
    known = {name: code for code, name in enumerate(sorted({name for name in names if name is not None}))}
    return np.asarray([-1 if name is None else known[name] for name in names], dtype=np.int64)


def shortcuts(table: Table, fields: Mapping[str, Array], *, seed: int) -> tuple[list[Finding], dict[str, float]]:
    """Return the fields that predict the label of rows that they were not fitted on, and the AUROC of each.

    Each field is cut into at most ``BINS`` bins, whose shares of the classes in the other folds are its prediction (naive Bayes where
    there are several). Folds keep groups together.

    Args:
        table: Single-label rows.
        fields: Their fields.
        seed: Seed of the folds.
    """
    targets, folds = np.asarray(table.targets), folds_of(table, seed)
    counts = np.bincount(targets)
    if not folds or (counts > 0).sum() < 2:
        return [], {}
    binned = {name: _binned(values) for name, values in fields.items()}
    scores = {name: np.asarray(sum(_log_shares(bins, targets, folds) for bins in parts)) for name, parts in binned.items()}
    others = [score for name, score in scores.items() if name not in OF_CONTENT]
    figures = {name: auroc(score, targets) for name, score in scores.items()} | (
        {TOGETHER: auroc(np.sum(others, axis=0), targets)} if others else {}
    )
    return list(_findings(figures, counts[counts > 0])), {name: round(value, 4) for name, value in figures.items()}


def _findings(figures: Mapping[str, float], counts: Array) -> Iterator[Finding]:
    smallest, total = int(counts.min()), int(counts.sum())
    chance = 0.5 + ERRORS * float(np.sqrt((total + 1) / (12 * smallest * max(total - smallest, 1))))  # Mann & Whitney 1947
    strong = [
        f"{name} ({value:.3f})"
        for name, value in sorted(figures.items(), key=lambda item: -item[1])
        if name != TOGETHER and value > max(chance, STRONG_CONTENT if name in OF_CONTENT else STRONG)
    ]
    if strong:
        verb = "predicts" if len(strong) == 1 else "predict"
        message = f"{count(len(strong), 'field')} beside the content {verb} the label, by the AUROC alone: {examples(strong, 8)}"
        yield Finding("shortcuts", "warning", f"{message}; a model may learn them instead: balance them, or cut them off", len(strong))


def _binned(values: Array) -> list[Array]:
    """Return the bin of each row, for each column of a field."""
    columns = values.T if values.ndim == 2 else values[None]
    found = []
    for column in columns:
        if column.dtype.kind == "i":
            found.append(column)
            continue
        finite = column[np.isfinite(column)]
        edges = np.unique(np.quantile(finite, np.linspace(0, 1, BINS + 1)[1:-1])) if len(finite) else np.empty(0)
        found.append(np.where(np.isfinite(column), np.searchsorted(edges, column, side="right"), -1))
    return found


def _log_shares(bins: Array, targets: Array, folds: Sequence[tuple[Array, Array]]) -> Array:
    """Return the logarithms of the smoothed shares of the classes in each row's bin, over those in all rows, from the other folds."""
    classes = int(targets.max()) + 1
    numbers = np.unique(bins, return_inverse=True)[1]
    found = np.zeros((len(targets), classes))
    for train, held in folds:
        counts = np.zeros((int(numbers.max()) + 1, classes))
        np.add.at(counts, (numbers[train], targets[train]), 1)
        prior = (counts.sum(0) + 1) / (counts.sum() + classes)
        shares = (counts + prior) / (counts.sum(1, keepdims=True) + 1)
        found[held] = np.log(shares / prior)[numbers[held]]
    return found


def auroc(scores: Array, targets: Array) -> float:
    """Return the area under the ROC curve, the mean over the classes that have samples and lack some, each against the rest."""
    areas = [area(scores[:, index], targets == index) for index in range(scores.shape[1]) if 0 < (targets == index).sum() < len(targets)]
    return float(np.mean(areas)) if areas else 0.5
