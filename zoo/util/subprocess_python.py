"""Child Python processes that import what this one would, and nothing from the working directory."""

from __future__ import annotations

import os
import sys


def python(code: str) -> list[str]:
    """Return the words of a command that runs code without the working directory on its path, to which arguments may be added."""
    if sys.version_info >= (3, 11):
        return [sys.executable, "-P", "-c", code]
    return [sys.executable, "-c", f"import sys; del sys.path[0]\n{code}"]


def environment() -> dict[str, str]:
    """Return the environment of such a process: this one's, with this one's path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
