"""Checks of inputs and labels in memory before they are read as samples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.images.scans.dicom import DICOM
from zoo.data.images.scans.nifti import IS_VOLUME, NO_VOLUME, VOLUMES
from zoo.data.sources.image_files import PICTURE_SUFFIXES
from zoo.data.table import PIXELS
from zoo.errors import DataError, count, examples


def refuse_unordered(values: Any, what: str, source: str) -> None:
    """Check that inputs or labels are a sequence with a length: no dict, set or generator.

    Raises:
        DataError: With the remedy.
    """
    if values is None or isinstance(values, str | bytes):
        if values is not None:
            raise DataError(f"{source}: the {what} are one {type(values).__name__}; give a list with one per sample")
        return
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        raise DataError(f"{source}: the {what} are a sparse matrix; give an array: {'X' if what == 'inputs' else 'y'}.toarray()")
    if what == "inputs" and isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(f"{source}: the inputs are an array with masked values, which are not read; fill them: X.filled(0)")
    if isinstance(values, Mapping):
        how = "[y[name] for name in X]" if what == "labels" else "list(X.values())"
        raise DataError(f"{source}: the {what} are a dict, which has no order of samples; give a list, such as {how}")
    if not hasattr(values, "__len__") or not (hasattr(values, "__getitem__") or hasattr(values, "__array__")):
        kind = type(values).__name__
        remedy = (
            f"sorted({'X' if what == 'inputs' else 'y'})" if hasattr(values, "__len__") else f"list({'X' if what == 'inputs' else 'y'})"
        )
        raise DataError(
            f"{source}: the {what} are a {kind}, which cannot be indexed; give a list in the order of the samples, such as {remedy}"
        )
    if what == "labels" and not isinstance(values, list | tuple) and hasattr(values, "__getitem__") and _is_dataset(values):
        raise DataError(f"{source}: two datasets in a tuple are (X, y) here; give them as two arguments: fit(train, valid)")


def _is_dataset(values: Any) -> bool:
    """Return whether labels are a dataset of samples."""
    return (
        not hasattr(values, "__array__") and not hasattr(values, "tolist") and not isinstance(values, Sequence) and _first_is_pair(values)
    )


def _first_is_pair(values: Any) -> bool:
    try:
        return len(values) > 0 and isinstance(values[0], tuple | Mapping)
    except Exception:  # a dataset of the user's own may raise anything
        return True


def refuse_nul(inputs: Sequence[Any], source: str) -> None:
    """Check that no path has a NUL character, which no file name can have.

    Raises:
        DataError: Naming the rows.
    """
    rows = [f"row {row} ({item!r})" for row, item in enumerate(inputs) if isinstance(item, str) and "\0" in item]
    if rows:
        raise DataError(f"{source}: {count(len(rows), 'path')} with a NUL character, which no file has in its name: {examples(rows)}")


def refuse_other_kind(inputs: Any, reads: str, source: str) -> None:
    """Check that the files are not all of a kind that the model does not read: volumes for one of images, pictures for one of volumes.

    Single ones are refused when they are read, or left out.

    Raises:
        DataError: Naming some.
    """
    if reads not in PIXELS or not isinstance(inputs, list) or not inputs or not all(isinstance(item, str) for item in inputs):
        return
    if reads == "image":
        others, fault = all(item.lower().endswith(VOLUMES) for item in inputs), IS_VOLUME
    else:
        others, fault = all(item.lower().endswith((*PICTURE_SUFFIXES, *DICOM)) for item in inputs), NO_VOLUME
        others = others and not any(map(os.path.isdir, inputs))  # a series may have any name
    if others:
        each = "it" if len(inputs) == 1 else "each of them"
        raise DataError(f"{source} has {count(len(inputs), 'file')}: {examples(list(map(repr, inputs)))}; {each} {fault}")


def refuse_swapped(first: Any, label: Any, source: str) -> None:
    """Check that the first sample is not a label, and its label not an image.

    Raises:
        DataError: Naming the order.
    """
    if isinstance(first, bool | int | float | np.generic) and _is_image(label):
        raise DataError(
            f"{source}: the first input is {first!r} and its label is an image; the order is (input, target), and (X, y) of whole data"
        )


def _is_image(value: Any) -> bool:
    return (hasattr(value, "__array_interface__") and np.ndim(value) > 1) or (hasattr(value, "detach") and value.ndim > 1)
