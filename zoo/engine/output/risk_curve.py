"""The risk-coverage curve of a model as a CSV file or a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from zoo.engine.output.formats import staged
from zoo.engine.rundir.curves import empty_figure


def write_risk_curve(path: Path, curve: Mapping[str, Sequence[float]]) -> None:
    """Write the columns ``coverage``, ``risk`` and ``confidence``, by the suffix of the file, atomically."""
    with staged(path, 24 * len(curve["risk"])) as stream:
        (_draw if path.suffix.lower() == ".png" else _write)(stream, curve)


def _write(stream: IO[bytes], curve: Mapping[str, Sequence[float]]) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(curve)
    writer.writerows(zip(*curve.values(), strict=True))
    text.flush()
    text.detach()


def _draw(stream: IO[bytes], curve: Mapping[str, Sequence[float]]) -> None:
    figure = empty_figure(5, 4, layout="constrained")
    axes = figure.add_subplot()
    coverage, risk = np.asarray(curve["coverage"]), np.asarray(curve["risk"])
    axes.step(coverage, risk, where="post", label="the most confident first")
    axes.axhline(risk[-1], color="grey", linestyle=":", label="in any order")
    axes.set(xlabel="coverage: share of samples that are answered", ylabel="risk: share of wrong answers among them", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(stream, format="png", dpi=120)
