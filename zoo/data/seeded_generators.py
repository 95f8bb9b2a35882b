"""Seeding of the global random generators for a while."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seeded_generators(rng: random.Random) -> Iterator[int]:
    """Seed all global random generators from ``rng`` and restore them at the end; yield the seed."""
    import numpy as np
    import torch

    seed = rng.getrandbits(63)
    python, numbers, state = random.getstate(), np.random.get_state(legacy=False), torch.default_generator.get_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)  # only the CPU's: torch.manual_seed would reset a GPU's too
        yield seed
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
        torch.default_generator.set_state(state)
