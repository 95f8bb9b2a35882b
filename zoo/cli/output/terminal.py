"""Tables and pages that fit the width of the terminal, so that no line wraps."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, repeat

from zoo.cli.output.stdout import cell_text, table

COMMON = 0.9  # share of the rows for whose last cell a table keeps room beside their names
INDENT = 4  # columns before a value that has a line of its own


def terminal_width() -> int:
    """Return the columns of the terminal, or of ``COLUMNS``; no limit where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or os.environ.get("COLUMNS") else sys.maxsize


def fitted_table(
    rows: Sequence[Sequence[object]], header: Sequence[str], *, width: int, right: Collection[int] = (), optional: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Return a table whose lines are at most ``width`` long, and the headers of the columns that were left out for it.

    Where that is not enough, a long first cell has a line of its own, with the other cells of its row below it.

    Args:
        rows: The cells of each row.
        header: A header per column.
        width: Most characters of a line.
        right: Indices of the columns that are right-aligned.
        optional: Headers of columns that may be left out, the first of them first.
    """
    kept, left_out = list(range(len(header))), list[str]()
    for name in [None, *optional]:
        if name is not None:
            kept.remove(header.index(name))
            left_out.append(name)
        text = table(([row[index] for index in kept] for row in rows), [header[index] for index in kept], right=_positions(kept, right))
        if max(map(len, text.splitlines())) <= width:
            return text, left_out
    cells = [[cell_text(row[index]) for index in kept] for row in (header, *rows)]
    return "\n".join(_two_lines_where_needed(cells, width, _positions(kept, right))), left_out


def _positions(kept: Sequence[int], right: Collection[int]) -> list[int]:
    return [position for position, index in enumerate(kept) if index in right]


def _two_lines_where_needed(cells: Sequence[Sequence[str]], width: int, right: Collection[int]) -> list[str]:
    """Return the lines of a table; a row that is longer than ``width`` takes two."""
    inner = [max(map(len, column)) for column in list(zip(*cells, strict=True))[1:-1]]
    last = sorted(len(row[-1]) for row in cells)[int(COMMON * (len(cells) - 1))]
    first = max(0, min(max(len(row[0]) for row in cells), width - sum(size + 2 for size in inner) - last - 2))
    lines = []
    for row in cells:
        middle = [
            cell.rjust(size) if index in right else cell.ljust(size)
            for index, (cell, size) in enumerate(zip(row[1:-1], inner, strict=True), 1)
        ]
        rest = "  ".join([*middle, row[-1]]).rstrip()
        start = max(0, min(first + 2, width - len(rest)))
        if len(row[0]) + 2 <= start:
            lines.append(row[0].ljust(start) + rest)
        else:
            lines += [row[0], " " * start + rest]
    return lines


def page(rows: Mapping[str, str], *, width: int) -> str:
    """Return a paragraph per line of each entry, its key on the left; no word is cut, so that a URL can be copied."""
    column = max(map(len, rows)) + 4
    lines = []
    for key, value in rows.items():
        first, after = f"  {key}".ljust(column), " " * column
        if max(map(len, value.split()), default=0) > width - column:
            lines.append(f"  {key}")
            first = after = " " * INDENT
        for indent, part in zip(chain([first], repeat(after)), value.splitlines(), strict=False):
            lines += textwrap.wrap(
                part, width, initial_indent=indent, subsequent_indent=after, break_long_words=False, break_on_hyphens=False
            )
    return "\n".join(lines)
