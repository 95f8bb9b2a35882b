"""The choice among candidates of domain adaptation by what validators say, without labels of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zoo.transfer.domain.evidence import Evidence

BASELINE = "source-only"
VOTES = {"infomax": True, "entropy": False, "snd": True, "dev": False}
"""The validators that vote, and whether high is good."""
NEEDED = 3  # votes for a candidate against the baseline
ERRORS = 2.0  # standard errors of the difference by which the accuracy on the source may fall
FEWEST = 10.0  # samples of the source that a risk of DEV must be worth to vote


@dataclass(frozen=True)
class Candidate:
    """A candidate that was run, or left out.

    Attributes:
        method: Its method.
        evidence: What speaks for it; None where it was left out.
        kept: Number of the kept epoch.
        seconds: Time of its run.
        folder: Its folder, relative to that of the choice.
        note: Why it was left out or cannot be chosen.
        votes: The validators that prefer it to the baseline.
        chosen: Whether it was chosen.
    """

    method: str
    evidence: Evidence | None = None
    kept: int = 0
    seconds: float = 0.0
    folder: str = ""
    note: str = ""
    votes: tuple[str, ...] = ()
    chosen: bool = False

    def row(self) -> dict[str, Any]:
        """Return it as plain data; None where a number is undefined."""
        plain = asdict(self)
        found = plain.pop("evidence") or {}
        numbers = {name: None if value != value else round(value, 5) for name, value in found.items()}
        return {"method": plain.pop("method"), **numbers, **plain, "votes": list(self.votes), "seconds": round(self.seconds, 3)}


def votes_for(one: Evidence, baseline: Evidence) -> tuple[str, ...]:
    """Return the validators that prefer a candidate to the baseline; a tie is no vote."""
    found = []
    for name, high in VOTES.items():
        gain = (getattr(one, name) - getattr(baseline, name)) * (1 if high else -1)
        usable = name != "dev" or min(one.dev_samples, baseline.dev_samples) >= FEWEST
        if usable and gain > 0:
            found.append(name)
    return tuple(found)


def fault_of(one: Evidence, baseline: Evidence, votes: Sequence[str]) -> str:
    """Return why a candidate may not replace the baseline; empty if it may."""
    error = float(np.hypot(one.error, baseline.error))
    if one.accuracy < baseline.accuracy - ERRORS * error:
        return f"its accuracy on the source is {one.accuracy:.3f}, lower than {baseline.accuracy:.3f} by more than noise"
    if len(votes) < NEEDED:
        return f"{len(votes)} of {len(VOTES)} validators prefer it to {BASELINE}, and {NEEDED} are needed"
    return ""


def mean_ranks(found: Sequence[Evidence]) -> list[float]:
    """Return the mean rank of each over the validators, 0 for the best; DEV counts where it is worth enough samples for all."""
    if not found:
        return []
    ranks = []
    for name, high in VOTES.items():
        if name == "dev" and min(one.dev_samples for one in found) < FEWEST:
            continue
        values = np.asarray([getattr(one, name) for one in found]) * (-1 if high else 1)
        ranks.append(np.asarray([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values]))
    return [float(rank) for rank in np.mean(ranks, axis=0)]
