"""The seed of the values of new modules."""

from __future__ import annotations

import torch


def seed_modules(seed: int) -> None:
    """Seed the generator that new modules draw their values from: the CPU's, or all where the default device is another.

    ``torch.manual_seed`` would reset the generators of GPUs too, which ``fork_rng(devices=[])`` does not restore.
    """
    if torch.get_default_device().type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
