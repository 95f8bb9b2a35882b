"""The scores of the folds as a picture, with their mean and its interval."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo.engine.rundir.curves import drawn, empty_figure
from zoo.select.crossval.result import PICTURE, CrossValidation


def draw_folds(found: CrossValidation) -> None:
    """Draw a point per fold, a row per repeat, above the mean with its interval."""
    drawn(lambda where: _draw(found, where), found.dir / PICTURE)


def _draw(found: CrossValidation, path: Path) -> None:
    repeats = max(fold.repeat for fold in found.folds) + 1
    height = 1.5 + 0.4 * repeats
    figure = empty_figure(7, height)
    panel = figure.subplots()
    figure.subplots_adjust(left=0.16, right=0.96, bottom=0.6 / height, top=0.95)
    scores, summary = np.asarray(found.values(found.metric)), found.scores[found.metric]
    rows = np.asarray([repeats - fold.repeat for fold in found.folds])
    panel.plot(scores, rows, linestyle="none", marker="o", color="tab:blue", alpha=0.7)
    if np.isfinite(summary.low):
        panel.axvspan(summary.low, summary.high, color="tab:green", alpha=0.15)
        panel.plot([summary.low, summary.high], [0, 0], color="tab:green", linewidth=2)
    panel.plot([summary.mean], [0], color="tab:green", marker="D")
    names = ["folds"] if repeats == 1 else [f"repeat {number + 1}" for number in reversed(range(repeats))]
    panel.set_yticks(range(repeats + 1), ["mean", *names])
    panel.set_ylim(-0.6, repeats + 0.6)
    panel.set_xlabel(f"{found.metric} of the held-out samples; mean{' with its 95 % interval' if np.isfinite(summary.low) else ''}")
    panel.grid(axis="x", linewidth=0.5, color="lightgrey")
    figure.savefig(path, dpi=120)
