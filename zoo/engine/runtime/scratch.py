"""Temporary folders of work whose result is kept elsewhere, so that messages do not name them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "zoo-scratch-"
KEEP_NOTHING = "Nothing of the training is kept, as it has no folder of its own: training={'out': …} (--set out=DIR) gives it one"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new temporary folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        yield Path(folder)


def is_scratch(folder: Path) -> bool:
    """Return whether a folder lies in one of ``scratch_folder``, so that nothing in it stays."""
    return any(part.startswith(PREFIX) for part in folder.parts)
