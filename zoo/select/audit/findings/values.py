"""Files that cannot be read, and samples whose values or sizes are unlike the others'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zoo.data.table import PIXELS, Array, Table
from zoo.data.unreadable_input import unreadable
from zoo.errors import count, examples
from zoo.select.audit.findings.finding import Finding, found
from zoo.select.audit.reading.kept import Arrays

SMALLEST = 16  # pixels of a side
FEWEST_SLICES = 5  # of a volume; with fewer it may be a scout
FENCE = 3.0  # interquartile ranges beyond the quartiles, outside of which a value is far out (Tukey 1977)
MOST_KINDS = 8  # that are told
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
    yield from _small(table, facts, good)
    for name, values in (("mean", mean), ("range", high - low) if table.reads == "volume" else ("standard deviation", spread)):
        yield from _outliers(table, good, name, values)
    if table.reads == "volume":
        yield from _spacings(table, facts, good)
    for kinds, names in _kinds(table, facts, good):
        if 1 < len(kinds) <= MOST_KINDS:
            told = examples([f"{kind} ({number})" for kind, number in kinds], MOST_KINDS)
            yield Finding("values", "note", f"{len(kinds)} {names}: {told}", len(kinds))


def _small(table: Table, facts: Arrays, good: Array) -> Iterator[Finding]:
    volumes = table.reads == "volume"
    small = good[facts["shortest"][good] < (FEWEST_SLICES if volumes else SMALLEST)]
    if not small.size:
        return
    if volumes:
        what = f"{count(len(small), 'volume')} of fewer than {FEWEST_SLICES} slices, as of a scout"
        sizes = [str(facts["shape"][row]) for row in small]
    else:
        what = f"{count(len(small), 'image')} with a side under {SMALLEST} pixels"
        sizes = [f"{facts['width'][row]} x {facts['height'][row]}" for row in small]
    yield found("values", "warning", f"{what}: {_names(table, small)}", small[:, None], sizes)


def _spacings(table: Table, facts: Arrays, good: Array) -> Iterator[Finding]:
    """Yield the volumes without a spacing among others that have one, and those of an odd spacing."""
    spacing = facts["spacing"][good]
    known = np.isfinite(spacing).all(1)
    if known.any() and not known.all():
        without = good[~known]
        message = f"{count(len(without), 'volume')} without a spacing, which are not resampled as the others: {_names(table, without)}"
        yield found("values", "warning", message, without[:, None])
    if known.any():
        yield from _outliers(table, good[known], "longest step in mm", spacing[known].max(1), of="")


def _kinds(table: Table, facts: Arrays, good: Array) -> Iterator[tuple[list[tuple[str, int]], str]]:
    """Yield the kinds of files, and of volumes the shapes and spacings, with their numbers, the most frequent first."""
    columns = {"kinds of images" if table.reads == "image" else "kinds of files": facts["kind"][good].tolist()}
    if table.reads == "volume":
        columns["shapes"] = facts["shape"][good].tolist()
        columns["spacings in mm"] = [" x ".join(f"{step:.3g}" for step in one) for one in facts["spacing"][good] if np.isfinite(one).all()]
    for names, values in columns.items():
        yield Counter(map(str, values)).most_common(), names


def _outliers(table: Table, good: Array, name: str, values: Array, of: str = " of values") -> Iterator[Finding]:
    """Yield the samples whose values are far from the others', the farthest first."""
    middle = float(np.median(values))
    order = np.argsort(-np.abs(values - middle), kind="stable")
    odd = order[_far_out(values)[order]]
    if odd.size:
        message = f"{count(len(odd), 'sample')} whose {name}{of} is far from the median {middle:.4g}: {_names(table, good[odd])}"
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
    if table.reads == "volume" and (steps := facts["spacing"][good][np.isfinite(facts["spacing"][good]).all(1)]).size:
        columns |= {"shortest step in mm": steps.min(1), "longest step in mm": steps.max(1)}
    columns |= dict(zip(_NAMES, facts["range"][good].T, strict=True))
    return {
        name: {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}
        for name, values in columns.items()
    }
