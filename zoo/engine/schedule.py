"""Learning-rate schedule: linear warm-up, then a cosine to zero."""

from __future__ import annotations

import math


def rate(step: int, total: int, warmup: float) -> float:
    """Return the factor on the learning rate at ``step``, in (0, 1].

    The factor rises linearly over the first ``warmup`` share of the steps and falls as half a cosine over the rest
    (Loshchilov & Hutter 2017). No step is spent at a rate of zero: the last is one step short of the cosine's end.

    Args:
        step: Optimizer steps done in this phase, from 0.
        total: Optimizer steps of this phase.
        warmup: Share of ``total``, in [0, 1).
    """
    rising = round(total * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
