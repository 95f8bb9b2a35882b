"""Encoding of the numbers of a regression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.data.table import Array, item_name
from zoo.errors import DataError, count, examples
from zoo.tasks.labels.names import number_hint

_MAX_ROUNDING = 1e-3  # of float32, in standard deviations of a target
_MAX_TARGET = float(np.finfo(np.float32).max)  # larger values would be infinite as float32 targets


def encode_numbers(labels: Sequence[Any], inputs: Sequence[Any], source: str) -> Array:
    """Return float32 numbers ``(n,)`` or ``(n, values)``."""
    values, faults, wrong = [], [], []
    for row, label in enumerate(labels):
        try:
            parts = re.split(r"[|;]", label) if isinstance(label, str) else label
            values.append([float(part) for part in parts] if isinstance(parts, list | tuple) else [float(parts)])
            if not all(abs(value) <= _MAX_TARGET for value in values[-1]):  # NaN included
                raise ValueError("not finite")
        except (TypeError, ValueError):
            faults.append(f"{item_name(inputs, row)}: {label!r}")
            wrong.append(label if isinstance(label, str) else repr(label))
    if faults:
        unlike = f"{count(len(faults), 'label')} of {len(labels)}: {examples(faults)}{number_hint(wrong)}"
        raise DataError(f"{source}: regression needs finite numbers, unlike {unlike}")
    widths = sorted({len(value) for value in values})
    if len(widths) > 1:
        raise DataError(f"{source}: labels have {examples(widths)} values per sample; give every sample the same number")
    array = np.asarray(values, dtype=np.float32).reshape(len(values), -1)
    _refuse_rounding(np.asarray(values, dtype=np.float64).reshape(array.shape), array, source)
    return array[:, 0] if widths == [1] else array


def _refuse_rounding(values: Array, rounded: Array, source: str) -> None:
    """Check that numbers differ by more than float32, in which outputs are computed, can tell apart."""
    spread = values.std(0)
    lost = np.abs(values - rounded).max(0, initial=0)
    odd = [int(column) for column in np.flatnonzero((spread > 0) & (lost > _MAX_ROUNDING * spread))]
    if odd:
        low, high = values[:, odd[0]].min(), values[:, odd[0]].max()
        raise DataError(
            f"{source}: targets from {low:.17g} to {high:.17g} are closer together than float32 can tell apart at their size; subtract a "
            "constant, such as their mean, and add it to the predictions"
        )
