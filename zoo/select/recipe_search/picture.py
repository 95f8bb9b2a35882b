"""The candidates as a picture: score with its interval, and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.engine.rundir.curves import drawn, empty_figure
from zoo.engine.runtime.progress import in_time_units


def draw_candidates(rows: Sequence[Mapping[str, Any]], path: Path, *, monitor: str) -> None:
    """Draw one line per candidate that was tried, the chosen one in green.

    Args:
        rows: See ``zoo.engine.rundir.run_folder.Run``.
        path: A ``.png`` file, replaced.
        monitor: Name of the score.
    """
    drawn(lambda where: _draw([row for row in rows if row["score"] is not None], where, monitor), path)


def _draw(rows: Sequence[Mapping[str, Any]], path: Path, monitor: str) -> None:
    figure = empty_figure(7.5, 1.3 + 0.45 * len(rows))
    panel = figure.subplots()
    figure.subplots_adjust(left=0.2, right=0.8, bottom=0.55 / (1.3 + 0.45 * len(rows)), top=0.93)
    for place, row in enumerate(reversed(rows)):
        color = "tab:green" if row["chosen"] else "tab:blue"
        if row["low"] is not None:
            panel.plot([row["low"], row["high"]], [place, place], color=color, linewidth=2)
        panel.plot([row["score"]], [place], color=color, marker="o")
        panel.text(1.02, place, in_time_units(row["seconds"]), transform=panel.get_yaxis_transform(), va="center", fontsize=9)
    panel.set_yticks(range(len(rows)), [row["name"] for row in reversed(rows)])
    panel.set_ylim(-0.6, len(rows) - 0.4)
    panel.set_xlabel(f"{monitor}, with its 95 % interval")
    panel.grid(axis="x", linewidth=0.5, color="lightgrey")
    figure.savefig(path, dpi=120)
