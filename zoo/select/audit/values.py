"""Files that cannot be read, and samples whose values or sizes are unlike the others'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zoo.data.table import PIXELS, Array, Table
from zoo.data.unreadable_input import unreadable
from zoo.errors import count, examples
from zoo.select.audit.finding import Finding, found
from zoo.select.audit.kept import Arrays

SMALLEST = 16  # pixels of a side
FENCE = 3.0  # interquartile ranges beyond the quartiles, outside of which a value is far out (Tukey 1977)
WORDS = 10_000  # of a text, above which it may be a whole document
_NAMES = ("lowest value", "highest value", "mean", "standard deviation")


def broken(table: Table, facts: Arrays) -> dict[int, str]:
    """Return why samples cannot be read, by row."""
    errors = dict(unreadable(table.inputs))
    return errors | {row: str(error) for row, error in enumerate(facts.get("error", ())) if error}


def broken_files(table: Table, errors: dict[int, str]) -> Iterator[Finding]:
    """Yield the samples that cannot be read."""
    if errors:
        named = examples(list(errors.values()))
        message = f"{count(len(errors), 'sample')} of {len(table)} cannot be read: {named}; remove or replace them"
        yield found("files", "warning", message, ([row] for row in errors), errors.values())


def odd_values(table: Table, facts: Arrays, errors: dict[int, str]) -> Iterator[Finding]:
    """Yield samples without content, and such as are far from the others in size or brightness."""
    good = np.setdiff1d(np.arange(len(table)), list(errors))
    if table.reads in PIXELS and len(good):
        yield from _odd_pixels(table, facts, good)
    elif table.reads == "text":
        yield from _odd_texts(table, good)


def _odd_pixels(table: Table, facts: Arrays, good: Array) -> Iterator[Finding]:
    low, high, mean, spread = facts["range"][good].T
    if (constant := good[low == high]).size:
        yield found(
            "values",
            "warning",
            f"{count(len(constant), 'sample')} of a single value, without content: {_names(table, constant)}",
            constant[:, None],
        )
    if table.reads == "image":
        small = good[np.minimum(facts["width"][good], facts["height"][good]) < SMALLEST]
        if small.size:
            message = f"{count(len(small), 'image')} with a side under {SMALLEST} pixels: {_names(table, small)}"
            yield found("values", "warning", message, small[:, None], [f"{facts['width'][row]} x {facts['height'][row]}" for row in small])
    for name, values in (("mean", mean), ("range", high - low) if table.reads == "volume" else ("standard deviation", spread)):
        yield from _outliers(table, good, name, values)
    modes = {str(kind): int(number) for kind, number in zip(*np.unique(facts["kind"][good], return_counts=True), strict=True)}
    if table.reads == "image" and 1 < len(modes) <= 8:
        told_kinds = examples([f"{kind} ({number})" for kind, number in sorted(modes.items(), key=lambda item: -item[1])], 8)
        yield Finding("values", "note", f"{len(modes)} kinds of images: {told_kinds}", len(modes))


def _outliers(table: Table, good: Array, name: str, values: Array) -> Iterator[Finding]:
    """Yield the samples whose values are far from the others', the farthest first."""
    middle = float(np.median(values))
    order = np.argsort(-np.abs(values - middle), kind="stable")
    odd = order[_far_out(values)[order]]
    if odd.size:
        message = f"{count(len(odd), 'sample')} whose {name} of values is far from the median {middle:.4g}: {_names(table, good[odd])}"
        yield found("values", "note", message, good[odd][:, None], [f"{name} {value:.4g}" for value in values[odd]])


def _odd_texts(table: Table, good: Array) -> Iterator[Finding]:
    texts = [table.inputs[row] for row in good]
    words = np.asarray([len(" ".join(text if isinstance(text, tuple | list) else [text]).split()) for text in texts])
    if (empty := good[words == 0]).size:
        yield found("values", "warning", f"{count(len(empty), 'text')} without a word: {_names(table, empty)}", empty[:, None])
    if (long := good[words > WORDS]).size:
        yield found("values", "note", f"{count(len(long), 'text')} of more than {WORDS} words: {_names(table, long)}", long[:, None])


def _far_out(values: Array) -> Array:
    """Return which values are far outside of the quartiles; none where they hardly vary."""
    low, high = np.percentile(values, (25, 75))
    fence = FENCE * (high - low)
    return np.asarray(((values < low - fence) | (values > high + fence)) & (fence > 0))


def _names(table: Table, rows: Sequence[int] | Array) -> str:
    return examples([table.name_of(int(row)) for row in rows])


def figures_of(table: Table, facts: Arrays, errors: dict[int, str]) -> dict[str, Any]:
    """Return the median and the extremes of sizes and values."""
    good = np.setdiff1d(np.arange(len(table)), list(errors))
    if table.reads not in PIXELS or not len(good):
        return {}
    columns = {"width": facts["width"][good], "height": facts["height"][good]}
    columns |= dict(zip(_NAMES, facts["range"][good].T, strict=True))
    return {
        name: {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}
        for name, values in columns.items()
    }
