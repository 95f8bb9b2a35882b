"""Equal samples of a table: found by content, kept together by every split that zoo makes."""

from __future__ import annotations

import bisect
import hashlib
import logging
import os
import stat
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from zoo.data.raw import Chain
from zoo.data.sources.torch_data.items import Items, below_wrapper, column_of_tensors
from zoo.data.table import PIXELS, Array, Table, View
from zoo.errors import count, examples
from zoo.util.file_digest import file_digest

log = logging.getLogger("zoo")
MAX_COMPARED_FILES = 100_000  # files of a table that are compared by content; above, by path, as each has to be looked up on the disk


def content_keys(*tables: Table) -> list[list[Hashable]]:
    """Return a key per sample of each table; samples of equal content have equal keys.

    Files are read only where another one has the same size. Samples that can only be had by running code of the user's (torch
    datasets) are known by their dataset and their index.
    """
    sizes: dict[int, int] = defaultdict(int)
    paths = {path for table in tables for item in _items(table) if (path := _path_of(item, table))}
    stats = {path: _status(path) for path in paths} if len(paths) <= MAX_COMPARED_FILES else {}
    for identity in {status[1]: status for status in stats.values() if status}.values():
        sizes[identity[0]] += 1

    def key(item: Any, table: Table, row: int) -> Hashable:
        if isinstance(item, _Origin):
            return item
        path = _path_of(item, table)
        if not path:
            return memory_key(item) or (id(table), row)
        status = stats.get(path)
        digest = _digest_of(path) if status and sizes[status[0]] > 1 else b""
        return digest or (status[1] if status else str(os.path.realpath(path)))  # hard links are one file

    return [[key(item, table, row) for row, item in enumerate(_items(table))] for table in tables]


def equal_samples(table: Table, *, checked: bool = False) -> Array | None:
    """Return a number per sample, the same for samples of equal content; None if all differ.

    What is found is logged in one line, with samples whose labels contradict each other.

    Args:
        table: Labelled rows, which are to be divided.
        checked: Whether ``warn_of_contradictions`` was called for them, so that those are not told again.
    """
    equal = equal_rows(table)
    if equal:
        more, against = sum(len(rows) - 1 for rows in equal), "" if checked else _contradictions(table, equal)
        line = f"{table.source}: {count(more, 'sample')} {'repeats' if more == 1 else 'repeat'} another one; "
        line += "they stay on one side of the split"
        log.log(logging.WARNING if against else logging.INFO, "; ".join(filter(None, (line, against))))
    return equal_numbers(len(table), equal)


def warn_of_contradictions(table: Table) -> None:
    """Warn of samples of equal content whose labels contradict each other, in a table that is not to be divided, or not here."""
    if against := _contradictions(table, equal_rows(table)):
        log.warning("%s: %s", table.source, against)


def samples_digest(*tables: Table) -> str:
    """Return a digest of the labelled samples of tables in any order, by which the same ones are known again in another process.

    Files count by the last two parts of their paths, as in ``summary``. It is empty where samples can only be had by running code of
    the user's.
    """
    total = 0
    for table in tables:
        for row, item in enumerate(_items(table)):
            if isinstance(item, _Origin):
                return ""
            path = _path_of(item, table)
            key = "/".join(Path(path).parts[-2:]) if path else memory_key(item)
            if not key:
                return ""
            total += int.from_bytes(hashlib.sha256(repr((key, _target(table, row))).encode()).digest(), "big")
    return f"{total % 2**256:064x}"


def equal_rows(table: Table) -> list[list[int]]:
    """Return the sets of rows of equal content."""
    (keys,) = content_keys(table)
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        rows[key].append(row)
    return [found for found in rows.values() if len(found) > 1]


def equal_numbers(count: int, equal: Sequence[Sequence[int]]) -> Array | None:
    """Return a number for each of ``count`` rows, the same within each of the sets ``equal``; None if there is no set."""
    numbers = np.arange(count)
    for rows in equal:
        numbers[list(rows)] = rows[0]
    return numbers if equal else None


def merged_groups(groups: Sequence[str], equal: Array) -> tuple[str, ...]:
    """Return group ids in which groups that share equal samples are one."""
    parents: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for group, number in zip(groups, equal.tolist(), strict=True):
        parents[root(("sample", number))] = root(("group", group))
    return tuple(repr(root(("group", group))) for group in groups)


def _contradictions(table: Table, equal: Sequence[list[int]]) -> str:
    """Return how many sets of equal rows have labels that contradict each other, with some of them; empty if none has."""
    against = [rows for rows in equal if _contradict(table, rows)]
    names = [f"{table.name_of(rows[0])} and {table.name_of(rows[1])}" for rows in against]
    return f"{count(len(against), 'set')} of equal samples with contradicting labels: {examples(names)}" if against else ""


def _contradict(table: Table, rows: list[int]) -> bool:
    """Return whether samples have several labels, of several tasks those of one and the same; a missing one contradicts none."""
    if table.targets is None or not table.parts:
        return len({_target(table, row) for row in rows}) > 1
    values = table.targets[rows]
    return any(len(np.unique(own[part.known(values)], axis=0)) > 1 for part in table.parts for own in [values[:, part.start : part.stop]])


def _target(table: Table, row: int) -> Hashable:
    target = None if table.targets is None else table.targets[row]
    if isinstance(target, np.ndarray):
        return target.tobytes()
    return repr(target.item() if isinstance(target, np.generic) else target)  # numpy's own text differs between its versions


class _Origin(NamedTuple):
    """A sample of a dataset whose items are not looked at: the identity of the dataset, and the index in it."""

    dataset: int
    row: int


def _items(table: Table) -> Iterator[Any]:
    """Yield the samples of a table, or where they come from if only code of the user's has them."""
    if isinstance(table.inputs, list | np.ndarray):
        yield from table.inputs
        return
    compared = len(table) <= MAX_COMPARED_FILES
    for row in range(len(table)):
        found, index = _origin(table.inputs, row)
        yield found[index] if compared and _is_plain(found) else _Origin(id(getattr(found, "dataset", found)), index)


def _origin(items: Any, row: int) -> tuple[Any, int]:
    """Return the collection that holds a sample, and its index there, behind views, chains and the wrappers of torch."""
    while True:
        if isinstance(items, View):
            items, row = items.items, int(items.indices[row])
        elif isinstance(items, Chain):
            part = bisect.bisect_right(items.ends, row)
            items, row = items.parts[part], row - (items.ends[part - 1] if part else 0)
        elif isinstance(items, Items) and (below := below_wrapper(items.dataset, row)) is not None:
            items, row = items.of(below[0]), below[1]
        elif isinstance(items, Items) and (tensor := column_of_tensors(items)) is not None:
            items = tensor
        else:
            return items, row


def _is_plain(items: Any) -> bool:
    """Return whether indexing runs no code of the user's: tensors, arrays, lists, and columns of Hub datasets."""
    if isinstance(items, Items):
        kind = type(items.dataset)
        return kind.__name__ == "Dataset" and kind.__module__.partition(".")[0] == "datasets"
    return isinstance(items, list | tuple | np.ndarray) or hasattr(items, "detach")


def _path_of(item: Any, table: Table) -> str:
    """Return the file of a sample that is not in memory: a path, a dict of one, or a PIL image that has not been loaded."""
    if table.reads not in PIXELS:
        return ""
    if isinstance(item, str):
        return item
    if isinstance(item, Mapping) and item.get("bytes") is None:
        return os.fspath(item["path"]) if isinstance(item.get("path"), str | os.PathLike) else ""
    name = getattr(item, "filename", "") if isinstance(item, PIL.Image.Image) and getattr(item, "fp", None) is not None else ""
    return os.fspath(name) if isinstance(name, str | os.PathLike) else ""


def _status(path: str) -> tuple[int, tuple[int, int]] | None:
    """Return the size of a file and its identity on the disk."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return (found.st_size, (found.st_dev, found.st_ino)) if stat.S_ISREG(found.st_mode) else None


def _digest_of(path: str) -> bytes:
    """Return the sha256 of a file, as ``memory_key`` gives it of encoded images; empty if it cannot be read."""
    try:
        return bytes.fromhex(file_digest(Path(path)))
    except OSError:
        return b""


def memory_key(item: Any) -> Hashable:
    """Return a key of a sample in memory; empty for kinds that are not compared."""
    if isinstance(item, str | bytes):
        return item
    if isinstance(item, tuple | list) and all(isinstance(part, str) for part in item):
        return tuple(item)
    if isinstance(item, Mapping) and isinstance(item.get("bytes"), bytes):
        return hashlib.sha256(item["bytes"]).digest()
    if hasattr(item, "detach"):  # a tensor
        item = item.detach().cpu().numpy()
    if isinstance(item, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(item).tobytes() + repr((item.shape, item.dtype)).encode()).digest()
    if isinstance(item, PIL.Image.Image) and hasattr(getattr(item, "fp", None), "getvalue"):  # opened from bytes
        return hashlib.sha256(item.fp.getvalue()).digest()  # type: ignore[attr-defined]  # checked just above
    if isinstance(item, PIL.Image.Image) and getattr(item, "fp", None) is None:  # its pixels are in memory
        return hashlib.sha256(item.tobytes() + repr((item.size, item.mode)).encode()).digest()
    return ""
