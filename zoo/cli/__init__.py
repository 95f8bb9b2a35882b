"""The command line: parsing, calls and printing; heavy libraries are imported only by the commands that need them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code, also if it is interrupted before its modules are imported.

    Args:
        argv: Arguments without the program's name; None for those of the process.
    """
    try:
        from zoo.cli.app import main as run

        run(argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
