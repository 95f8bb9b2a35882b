"""Child Python processes with the path of this one, without the working directory."""

from __future__ import annotations

import os
import sys


def python(code: str) -> list[str]:
    """Return a command that runs code without the working directory on its path; arguments may be appended."""
    if sys.version_info >= (3, 11):
        return [sys.executable, "-P", "-c", code]
    return [sys.executable, "-c", f"import sys; del sys.path[0]\n{code}"]


def environment() -> dict[str, str]:
    """Return the environment of such a process, with this process's path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
