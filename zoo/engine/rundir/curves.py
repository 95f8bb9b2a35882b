"""Learning curves as a picture."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from zoo.errors import MissingExtraError
from zoo.plugins.loader import describe
from zoo.util.extras import require_extra

log = logging.getLogger("zoo")


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path, *, monitor: str, kept: int) -> None:
    """Draw losses and the monitored metric per epoch, the phases and the kept epoch marked.

    Args:
        history: One record per epoch.
        path: A ``.png`` file, replaced.
        monitor: Metric of the right panel.
        kept: Number of the kept epoch, from 1.
    """
    drawn(lambda where: _draw(history, where, monitor=monitor, kept=kept), path)


def empty_figure(width: float, height: float, **options: Any) -> Any:
    """Return matplotlib's ``Figure`` of a size in inches, ready to be saved as a picture.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    require_extra("plots", "a picture")
    # Figure and canvas directly: pyplot would choose a backend and keep global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def drawn(draw: Callable[[Path], None], path: Path) -> None:
    """Draw a picture; a failure is logged and does not end the run."""
    try:
        draw(path)
    except MissingExtraError as error:
        log.info("%r is left out: %s", str(path), error)
    except Exception as error:  # the results are written already
        log.warning("%r is left out: %s", str(path), error if isinstance(error, OSError) else describe(error))
        with suppress(OSError):
            path.unlink()


def _draw(history: Sequence[Mapping[str, Any]], path: Path, *, monitor: str, kept: int) -> None:
    figure = empty_figure(9, 3.8)
    panels = figure.subplots(1, 2)
    # Fixed margins: matplotlib's layout engines cost more than a tiny run, and warn on odd data.
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.21, top=0.91, wspace=0.22)
    epochs = [record["epoch"] for record in history]
    for panel, series in zip(panels, ({"train_loss": "train", "loss": "valid"}, {monitor: "valid"}), strict=True):
        for key, label in series.items():
            panel.plot(epochs, [record.get(key, float("nan")) for record in history], marker="o", markersize=3, label=label)
        _mark_phases(panel, history)
        if kept:
            panel.axvline(kept, linewidth=1, linestyle=":", color="tab:green", label=f"kept: epoch {kept}")
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3)  # below the curves
    panels[0].set_ylabel("loss")
    panels[1].set_ylabel(monitor)
    figure.savefig(path, dpi=120)


def _mark_phases(panel: Any, history: Sequence[Mapping[str, Any]]) -> None:
    starts = [record for before, record in zip([None, *history], history, strict=False) if not before or before["phase"] != record["phase"]]
    for record in starts:
        edge = record["epoch"] - 0.5
        if record is not history[0]:
            panel.axvline(edge, linewidth=1, color="lightgrey")
        panel.text(edge, 1.02, record["phase"], transform=panel.get_xaxis_transform(), fontsize=8, in_layout=False)
