"""Equal samples of a table: found by content, kept together by every split that zoo makes."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from zoo.data.table import PIXELS, Array, Table
from zoo.errors import count, examples
from zoo.util.file_digest import file_digest

log = logging.getLogger("zoo")
MAX_COMPARED_FILES = 100_000  # files of a table that are compared by content; above, by path, as each has to be looked up on the disk


def content_keys(*tables: Table) -> list[list[Hashable]]:
    """Return a key per sample of each table; samples of equal content have equal keys.

    Files are read only where another one has the same size. Samples that can only be had by running code of the user's (torch
    datasets) have keys of their own.
    """
    sizes: dict[int, int] = defaultdict(int)
    paths = {item for table in tables for item in _items(table) if _is_path(item, table)}
    stats = {path: _status(path) for path in paths} if len(paths) <= MAX_COMPARED_FILES else {}
    for identity in {status[1]: status for status in stats.values() if status}.values():
        sizes[identity[0]] += 1

    def key(item: Any, table: Table, row: int) -> Hashable:
        if not _is_path(item, table):
            return memory_key(item) or (id(table), row)
        status = stats.get(item)
        digest = _digest_of(item) if status and sizes[status[0]] > 1 else b""
        return digest or str(os.path.realpath(item))

    return [[key(item, table, row) for row, item in enumerate(_items(table))] for table in tables]


def equal_samples(table: Table) -> Array | None:
    """Return a number per sample, the same for samples of equal content; None if all differ.

    What is found is logged in one line, with samples whose labels contradict each other.
    """
    (keys,) = content_keys(table)
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        rows[key].append(row)
    equal = [found for found in rows.values() if len(found) > 1]
    if not equal:
        return None
    _report(table, equal)
    numbers = np.arange(len(table))
    for found in equal:
        numbers[found] = found[0]
    return numbers


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


def _report(table: Table, equal: list[list[int]]) -> None:
    more = sum(len(rows) - 1 for rows in equal)
    line = f"{table.source}: {count(more, 'sample')} {'repeats' if more == 1 else 'repeat'} another one; they stay on one side of the split"
    against = [rows for rows in equal if len({_target(table, row) for row in rows}) > 1]
    if against:
        names = [f"{table.name_of(rows[0])} and {table.name_of(rows[1])}" for rows in against]
        line += f"; {count(len(against), 'set')} of equal samples with contradicting labels: {examples(names)}"
    log.log(logging.WARNING if against else logging.INFO, line)


def _target(table: Table, row: int) -> Hashable:
    target = None if table.targets is None else table.targets[row]
    return target.tobytes() if isinstance(target, np.ndarray) else repr(target)


def _items(table: Table) -> Iterator[Any]:
    return iter(table.inputs) if isinstance(table.inputs, list | np.ndarray) else iter([None] * len(table))


def _is_path(item: Any, table: Table) -> bool:
    return isinstance(item, str) and table.reads in PIXELS


def _status(path: str) -> tuple[int, tuple[int, int]] | None:
    """Return the size of a file and its identity on the disk."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_size, (found.st_dev, found.st_ino)


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
    if isinstance(item, PIL.Image.Image) and getattr(item, "fp", None) is None:  # its pixels are in memory
        return hashlib.sha256(item.tobytes() + repr((item.size, item.mode)).encode()).digest()
    return ""
