"""Data of other libraries as the readers take them, and remedies for those that cannot be taken."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import DataError
from zoo.util.extras import require_extra

_TABLES = (("pyarrow", "Table"), ("polars", "DataFrame"))  # with to_pandas()
_SAVED = ("state.json", "dataset_dict.json")  # of datasets.Dataset and of a DatasetDict, in the folder of save_to_disk


def imported_class(module: str, name: str) -> Any:
    """Return a class of a module, or ``()``, of which nothing is an instance, if the module is not imported."""
    return getattr(sys.modules.get(module), name, ())


def as_frame(source: Any) -> Any:
    """Return a table of pyarrow or polars as a pandas DataFrame, and anything else as it is.

    Raises:
        MissingExtraError: If pandas or pyarrow is not installed, which both conversions need.
    """
    kinds = tuple(imported_class(module, name) for module, name in _TABLES)
    if not isinstance(source, kinds):
        return source
    require_extra("tables", f"a {type(source).__module__.partition('.')[0]} table")
    return source.to_pandas()


def is_saved_dataset(path: Path) -> bool:
    """Return whether a path is a folder that ``save_to_disk`` of the library ``datasets`` has written."""
    return any((path / name).is_file() for name in _SAVED)


def open_saved_dataset(path: Path) -> Any:
    """Return the ``Dataset`` or ``DatasetDict`` of a folder; its Arrow files are mapped into memory, and no code of it runs.

    Raises:
        MissingExtraError: If the library is not installed.
        DataError: If the folder is damaged.
    """
    require_extra("datasets", f"the saved dataset {str(path)!r}")
    import datasets  # type: ignore[import-untyped]  # ships no types

    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # of a library that raises many kinds for a damaged folder
        fault = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise DataError(f"{str(path)!r} cannot be opened by datasets.load_from_disk ({fault}); save it again") from error


def remedy_of_type(data: Any) -> str:
    """Return what makes readable data of something of an unknown type, behind a semicolon; empty if nothing is known."""
    if isinstance(data, Mapping):
        return "; pandas.DataFrame(data) makes a table of columns"
    if isinstance(data, Iterator):
        return "; it can be read only once, so make a list of it, list(data); of pairs X, y = zip(*data) makes (list(X), list(y))"
    return ""


def remedy_of_items(items: Sequence[Any]) -> str:
    """Return what makes readable data of a list of pairs or of dicts; of others that labels stand apart."""
    if all(isinstance(item, Mapping) for item in items):
        return "pandas.DataFrame(data) makes a table of dicts"
    if all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
        return "of pairs X, y = zip(*data) makes (list(X), list(y))"
    return "labels go into (X, y)"
