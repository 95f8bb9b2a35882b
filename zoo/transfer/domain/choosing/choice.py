"""The choice among candidates of domain adaptation by what validators say, without labels of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from zoo.select.comparison.paired import mcnemar
from zoo.transfer.domain.choosing.evidence import Evidence

BASELINE = "source-only"
VOTES = {"infomax": True, "entropy": False, "snd": True, "dev": False}
"""The validators that vote, and whether high is good."""
MISLED_BY_COLLAPSE = ("entropy", "snd")  # predictions of few classes are sure and have dense neighbours
LEAST_VARIETY = 0.5
ERRORS = 2.0  # standard errors of the difference that do not count as a difference
HARM = 0.2  # p-value below which a loss on the source is more than noise; above the usual 0.05, as keeping source-only is the safe mistake
TRADE = 0.05  # loss of accuracy on the source that is accepted, as a share of the samples
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
        found.pop("each", None)
        numbers = {name: None if value != value else round(value, 5) for name, value in found.items()}
        return {"method": plain.pop("method"), **numbers, **plain, "votes": list(self.votes), "seconds": round(self.seconds, 3)}


def usable_validators(one: Evidence, baseline: Evidence) -> list[str]:
    """Return the validators that can tell a candidate from the baseline.

    Entropy and SND cannot where the predictions of either have collapsed to few classes, DEV not within its noise.
    """
    usable = ["infomax"]
    if min(one.variety, baseline.variety) >= LEAST_VARIETY:
        usable += MISLED_BY_COLLAPSE
    enough = min(one.dev_samples, baseline.dev_samples) >= FEWEST
    if enough and abs(_gain("dev", one, baseline)) > ERRORS * _noise("dev", one, baseline):
        usable.append("dev")
    return usable


def votes_for(one: Evidence, baseline: Evidence) -> tuple[str, ...]:
    """Return the validators that prefer a candidate to the baseline by more than noise."""
    return tuple(name for name in usable_validators(one, baseline) if _gain(name, one, baseline) > ERRORS * _noise(name, one, baseline))


def _gain(name: str, one: Evidence, baseline: Evidence) -> float:
    """Return by how much a validator prefers a candidate to the baseline."""
    return float(getattr(one, name) - getattr(baseline, name)) * (1 if VOTES[name] else -1)


def _noise(name: str, one: Evidence, baseline: Evidence) -> float:
    """Return the standard error of the gain; of a mean over samples that of the paired differences."""
    if name == "dev":
        return float(np.hypot(one.dev_error, baseline.dev_error))
    gains = one.each[name] - baseline.each[name]
    return float(gains.std() / np.sqrt(max(len(gains) - 1, 1)))


def harms_source(one: Evidence, baseline: Evidence) -> bool:
    """Return whether a candidate loses more than ``TRADE`` of the baseline's accuracy on the source, and more than noise.

    Noise is judged by the held-out samples on which the two differ (McNemar's exact test, 1947).
    """
    lost = baseline.accuracy - one.accuracy
    return lost > TRADE + 1e-9 and mcnemar(one.each["right"] > 0, baseline.each["right"] > 0) < HARM


def fault_of(one: Evidence, baseline: Evidence, votes: Sequence[str]) -> str:
    """Return why a candidate may not replace the baseline; empty if it may."""
    if harms_source(one, baseline):
        lost = f"lower than {baseline.accuracy:.3f} by more than {TRADE:g} and by more than noise"
        return f"its accuracy on the source is {one.accuracy:.3f}, {lost}"
    voters = usable_validators(one, baseline)
    if "infomax" not in votes or 2 * len(votes) <= len(voters):
        found = f"of {', '.join(voters)} " + (f"only {', '.join(votes)} prefers it" if votes else "none prefers it")
        return f"{found} to {BASELINE} by more than noise; infomax and more than half must"
    return ""


def mean_ranks(found: Sequence[Evidence]) -> list[float]:
    """Return the mean rank of each over the validators, 0 for the best; of those that cannot judge all of them none counts."""
    left_out = MISLED_BY_COLLAPSE if any(one.variety < LEAST_VARIETY for one in found) else ()
    left_out = (*left_out, "dev") if any(one.dev_samples < FEWEST for one in found) else left_out
    ranks = []
    for name, high in VOTES.items():
        values = np.asarray([getattr(one, name) for one in found]) * (-1 if high else 1)
        if name not in left_out:
            ranks.append([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])
    return [float(rank) for rank in np.mean(ranks, axis=0)]


def chosen_of(found: Sequence[Candidate]) -> tuple[list[Candidate], str]:
    """Return the candidates with their votes and the chosen one marked, and the reason in one line.

    Args:
        found: The candidates; the baseline has evidence.
    """
    baseline = next(one for one in found if one.method == BASELINE)
    assert baseline.evidence is not None, "the baseline was run"
    judged = []
    for one in found:
        if one.evidence is None or one is baseline:
            judged.append(one)
            continue
        votes = votes_for(one.evidence, baseline.evidence)
        judged.append(replace(one, votes=votes, note=fault_of(one.evidence, baseline.evidence, votes)))
    better = [one for one in judged if one.votes and not one.note and one.evidence is not None]
    ranks = mean_ranks([one.evidence for one in better if one.evidence is not None])
    best = better[int(np.argmin(ranks))] if better else baseline
    reason = f"{BASELINE} is kept: no method is preferred by infomax and most validators without harm to the source"
    if better:
        rank = f" and has the best mean rank of {len(better)} such methods" if len(better) > 1 else ""
        reason = f"{best.method} is chosen: it is preferred to {BASELINE} by {', '.join(best.votes)}{rank}"
    return [replace(one, chosen=one.method == best.method) for one in judged], reason
