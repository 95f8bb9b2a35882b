"""The probe before and after: a solved linear head on the features of labelled data."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from zoo.data.open import open_train_valid
from zoo.data.sources.read import kind_of
from zoo.data.table import Table
from zoo.models.backbone import Backbone

TASK = "single-label"
Tables = tuple[Table, Table]


def open_probe(backbone: Backbone, data: Any, seed: int) -> Tables:
    """Return labelled samples to solve the head on, and held-out ones to measure it on.

    Args:
        backbone: The backbone, which says how the samples are read.
        data: As for ``fit``: with a split of its own for validation, else 20 % are held out.
        seed: Seed of the hold-out.

    Raises:
        DataError: If the data cannot be opened, or have one class only.
    """
    train, held = open_train_valid(data, task=TASK, reads=kind_of(backbone.spec.inputs, TASK), seed=seed)
    assert held is not None, "something is held out"
    return train, held


def probe_accuracy(backbone: Backbone, tables: Tables, **options: Any) -> float:
    """Return the accuracy on the held-out samples of a linear head that is solved on the features of the others.

    Args:
        backbone: The backbone, whose values stay as they are.
        tables: See ``open_probe``.
        **options: Of ``fit``: image_size, device and so on.
    """
    model = backbone.adapt(len(tables[0].classes), labels=tables[0].classes)
    model.spec = model.spec.replace(home="")  # it is saved for this function only, not for other libraries
    with tempfile.TemporaryDirectory() as folder:
        run = model.fit(*tables, recipe="linear-probe", augment="none", out=Path(folder) / "probe", quiet=True, **options)
    return run.metrics["accuracy"]
