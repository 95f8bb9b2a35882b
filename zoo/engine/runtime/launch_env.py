"""Environment variables of a launcher (zoo's own, torchrun, Accelerate). No torch here."""

from __future__ import annotations

import os


def launched() -> int:
    """Return how many processes a launcher started for this training; 1 without one."""
    return max(1, int(os.environ.get("WORLD_SIZE") or 1))


def rank() -> int:
    """Return the number of this process among them, from 0."""
    return int(os.environ.get("RANK") or 0)
