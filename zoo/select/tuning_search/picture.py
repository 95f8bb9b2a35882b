"""The history of a search and the importance of its options as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from zoo.engine.rundir.curves import drawn, empty_figure
from zoo.select.tuning_search.result import Tuning


def draw_tuning(found: Tuning) -> None:
    """Draw the value of each trial with the best so far, and the importance of the options if it is known."""
    drawn(lambda where: _history(found, where), found.dir / "history.png")
    if found.importance:
        drawn(lambda where: _importance(found.importance, where), found.dir / "importance.png")


def _history(found: Tuning, path: Path) -> None:
    figure = empty_figure(7, 3.6)
    panel = figure.subplots()
    figure.subplots_adjust(left=0.12, right=0.97, bottom=0.15, top=0.95)
    styles = {"complete": ("o", "tab:blue"), "pruned": ("x", "lightgrey")}
    for state, (marker, color) in styles.items():
        rows = [trial for trial in found.trials if trial.state == state and trial.value is not None]
        if rows:  # nothing in the legend that is not in the picture
            values = [trial.value for trial in rows]
            panel.plot([trial.number for trial in rows], values, linestyle="none", marker=marker, color=color, label=state)
    complete = [trial for trial in found.trials if trial.state == "complete" and trial.value is not None]
    best, steps = None, []
    for trial in complete:
        value = trial.value if trial.value is not None else 0.0
        best = value if best is None else (min if found.lower else max)(best, value)
        steps.append((trial.number, best))
    panel.step(*zip(*steps, strict=True), where="post", color="tab:green", label="best so far")
    if found.default is not None and found.default.value is not None:
        panel.axhline(found.default.value, linewidth=1, linestyle=":", color="tab:orange", label="default recipe")
    panel.set_xlabel("trial")
    panel.set_ylabel(found.monitor)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)


def _importance(shares: Mapping[str, float], path: Path) -> None:
    height = 1.2 + 0.35 * len(shares)
    figure = empty_figure(6, height)
    panel = figure.subplots()
    figure.subplots_adjust(left=0.24, right=0.95, bottom=0.6 / height, top=0.96)
    names = list(shares)[::-1]
    panel.barh(names, [shares[name] for name in names], color="tab:blue")
    panel.set_xlabel("share in the differences between trials")
    figure.savefig(path, dpi=120)
