"""A confusion matrix as a CSV file or a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from zoo.engine.output.formats import staged
from zoo.engine.rundir.curves import empty_figure

SUFFIXES = (".csv", ".png")
NUMBERED = 30  # classes up to which the picture has numbers


def write_confusion(path: Path, names: Sequence[str], matrix: Any) -> None:
    """Write how often each class (row) was predicted as each (column), by the suffix of the file, atomically."""
    with staged(path, matrix.nbytes) as stream:
        (_draw if path.suffix.lower() == ".png" else _write)(stream, names, matrix)


def _write(stream: IO[bytes], names: Sequence[str], matrix: Any) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["truth", *names])
    writer.writerows([name, *row.tolist()] for name, row in zip(names, matrix, strict=True))
    text.flush()
    text.detach()


def _draw(stream: IO[bytes], names: Sequence[str], matrix: Any) -> None:
    size = min(20.0, 3 + 0.4 * len(names))
    figure = empty_figure(size, size, layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="prediction", ylabel="truth")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    if len(names) <= NUMBERED:
        for row, column in np.ndindex(matrix.shape):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=color, fontsize=8)
    figure.savefig(stream, format="png", dpi=120)
