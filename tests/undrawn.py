"""Runs without pictures, which take half of a tiny run: of learning curves, of how a rate was found, of what was compared."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

# Functions of what is drawn and a path.
PICTURES = (
    "zoo.engine.rundir.curves._draw",
    "zoo.engine.train.auto_tune.draw_range",
    "zoo.select.crossval.picture._draw",
    "zoo.select.ranking.picture._draw",
    "zoo.select.recipe_search.picture._draw",
    "zoo.select.tuning_search.picture._history",
    "zoo.select.tuning_search.picture._importance",
)


def undrawn(_shown: Any, path: Path, *_: Any, **__: Any) -> None:
    """Stand in for one of ``PICTURES``: an empty file."""
    path.write_bytes(b"")


def leave_out_curves() -> None:
    """Draw no picture of a run in this process, for processes that a test starts; tests have a fixture that does the same."""
    for picture in PICTURES[:2]:
        module, _, name = picture.rpartition(".")
        setattr(importlib.import_module(module), name, undrawn)
