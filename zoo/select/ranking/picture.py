"""Score against cost, with the Pareto front."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.engine.rundir.curves import drawn, empty_figure
from zoo.select.ranking.ranking import Ranking
from zoo.select.ranking.row import Row


def draw_ranking(ranking: Ranking, path: Path) -> None:
    """Draw each candidate's score with its interval against its latency, and the front of those that no faster one reaches.

    Args:
        ranking: The result.
        path: A ``.png`` file, replaced.
    """
    drawn(lambda where: _draw(ranking, where), path)


def front(ranking: Ranking) -> list[Row]:
    """Return the candidates that score better than every faster one, the fastest first."""
    sign = -1.0 if ranking.lower else 1.0
    found: list[Row] = []
    for row in sorted(ranking.rows, key=lambda row: (row.latency_ms, -sign * row.probe.score)):
        if not found or sign * row.probe.score > sign * found[-1].probe.score:
            found.append(row)
    return found


def _draw(ranking: Ranking, path: Path) -> None:
    figure = empty_figure(8.0, 5.0)
    panel = figure.subplots()
    figure.subplots_adjust(left=0.11, right=0.97, bottom=0.12, top=0.95)
    for row in ranking.rows:
        color = "tab:green" if row is ranking.best else "lightgrey" if row.name in ranking.dominated else "tab:blue"
        _point(panel, row, color)
    line = front(ranking)
    panel.plot([row.latency_ms for row in line], [row.probe.score for row in line], color="grey", linewidth=1, linestyle="--", zorder=1)
    panel.set_xscale("log")
    panel.margins(x=0.18)
    panel.set_xlabel("milliseconds per sample, on this machine")
    panel.set_ylabel(f"{ranking.metric} of a cross-validated linear probe, with its 95 % interval")
    panel.grid(linewidth=0.5, color="lightgrey")
    figure.savefig(path, dpi=120)


def _point(panel: Any, row: Row, color: str) -> None:
    probe = row.probe
    if probe.low is not None:
        panel.plot([row.latency_ms] * 2, [probe.low, probe.high], color=color, linewidth=1.5, zorder=2)
    panel.plot([row.latency_ms], [probe.score], color=color, marker="o", zorder=3)
    short = row.name.rpartition("/")[2]
    panel.annotate(short, (row.latency_ms, probe.score), xytext=(6, 4), textcoords="offset points", fontsize=8)
    if row.tuned:
        panel.plot([row.latency_ms], [row.tuned.score], color=color, marker="^", zorder=3)
