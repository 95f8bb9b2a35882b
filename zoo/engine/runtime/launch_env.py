"""Environment variables of a launcher (zoo's own, torchrun, Accelerate); imports no torch."""

from __future__ import annotations

import os


def launched() -> int:
    """Return the number of processes of this training; 1 without a launcher."""
    return max(1, int(os.environ.get("WORLD_SIZE") or 1))


def rank() -> int:
    """Return the rank of this process, from 0."""
    return int(os.environ.get("RANK") or 0)
