"""The nearest existing path to one that does not exist."""

from __future__ import annotations

import os
from pathlib import Path

from zoo.errors import nearest


def did_you_mean_path(path: Path) -> str:
    """Return `` (did you mean 'folder/x'?)`` with the nearest entry of the folder of ``path``; an empty string without one.

    Of a link to nothing it says where it leads.
    """
    if path.is_symlink():
        return f" (it is a link to {str(path.readlink())!r}, which does not exist)"
    readable = path.parent.is_dir() and os.access(path.parent, os.R_OK)
    near = nearest(path.name, [entry.name for entry in path.parent.iterdir()] if readable else [], 1)
    return f" (did you mean {str(path.parent / near[0])!r}?)" if near else ""
