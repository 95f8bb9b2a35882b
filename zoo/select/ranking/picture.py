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
    figure = empty_figure(8.0, 5.4)
    panel = figure.subplots()
    figure.subplots_adjust(left=0.11, right=0.97, bottom=0.18, top=0.95)
    for row in ranking.rows:
        _point(panel, row, *_kind(row, ranking))
    line = front(ranking)
    style: dict[str, Any] = {"color": "grey", "linewidth": 1, "linestyle": "--", "zorder": 1, "label": "no faster one is better"}
    panel.plot([row.latency_ms for row in line], [row.probe.score for row in line], **style)
    panel.set_xscale("log")
    for which in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
        which(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "125" else "")
    panel.margins(x=0.18)
    panel.set_xlabel("milliseconds per sample, on this machine")
    panel.set_ylabel(f"{ranking.metric} of a cross-validated linear probe, with its 95 % interval", fontsize=9)
    panel.grid(linewidth=0.5, color="lightgrey")
    labelled = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))  # of equal labels the last
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncol": len(labelled)}
    panel.legend(labelled.values(), labelled.keys(), fontsize=8, frameon=False, **below)
    _name_points(panel, ranking)
    figure.savefig(path, dpi=120)


def _kind(row: Row, ranking: Ranking) -> tuple[str, str]:
    """Return the colour of a candidate and what it says."""
    if row is ranking.best:
        return "tab:green", "the best"
    return ("lightgrey", "dominated") if row.name in ranking.dominated else ("tab:blue", "others")


def _point(panel: Any, row: Row, color: str, label: str) -> None:
    probe = row.probe
    if probe.low is not None:
        panel.plot([row.latency_ms] * 2, [probe.low, probe.high], color=color, linewidth=1.5, zorder=2)
    panel.plot([row.latency_ms], [probe.score], color=color, marker="o", linestyle="", zorder=3, label=label)
    if row.tuned:
        panel.plot([row.latency_ms], [row.tuned.score], color=color, marker="^", linestyle="", zorder=3, label=f"{label}, fine-tuned")


def _name_points(panel: Any, ranking: Ranking) -> None:
    """Write the names beside the points, toward the middle, each below what it would lie on."""
    taken: list[Any] = []
    low, high = panel.transData.inverted().transform(panel.transAxes.transform([(0, 0), (1, 0)]))[:, 0]
    for row in sorted(ranking.rows, key=lambda row: -row.probe.score):
        right = row.latency_ms > (low * high) ** 0.5
        side = {"xytext": (-6, 4), "ha": "right"} if right else {"xytext": (6, 4), "ha": "left"}
        place = (row.latency_ms, row.probe.score)
        text = panel.annotate(row.name.rpartition("/")[2], place, textcoords="offset points", fontsize=8, **side)
        for _ in range(len(taken)):
            box = text.get_window_extent(panel.figure.canvas.get_renderer())
            if not any(box.overlaps(other) for other in taken):
                break
            text.xyann = (text.xyann[0], text.xyann[1] - 10)
        taken.append(text.get_window_extent(panel.figure.canvas.get_renderer()))
