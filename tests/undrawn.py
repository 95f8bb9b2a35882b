"""Runs without a picture of their learning curves, which takes half of a tiny run."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def undrawn(_history: Any, path: Path, **_: Any) -> None:
    """Stand in for ``zoo.engine.rundir.curves._draw``: an empty file."""
    path.write_bytes(b"")


def leave_out_curves() -> None:
    """Draw no curves in this process, for processes that a test starts; tests have a fixture that does the same."""
    from zoo.engine.rundir import curves

    curves._draw = undrawn
