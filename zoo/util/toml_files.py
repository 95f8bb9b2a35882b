"""Reading of TOML that may be damaged or hostile; any fault is a ``ValueError``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST = 2**20  # bytes; real files are far smaller, and hostile ones could keep the parser busy for minutes
MOST_DOTS = 300  # in a line; the time for a dotted key grows with the square of its parts


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, with or without a byte order mark.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is too large, no UTF-8, no TOML, or a pipe or device, which might never end.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    with path.open("rb") as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST} bytes")
    return parse_toml(content.decode("utf-8-sig"))


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        ValueError: If it is no TOML, or nested too deeply.
    """
    if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
        raise ValueError(f"a line has more than {MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
