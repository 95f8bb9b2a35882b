"""The result of a search, and its record ``tune.json``. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.util.numbers import score_text

if TYPE_CHECKING:
    from zoo.engine.rundir.run_folder import Run

RECORD = "tune.json"


@dataclass(frozen=True)
class TrialResult:
    """One trial.

    Attributes:
        number: Its number.
        state: ``complete``, ``pruned`` or ``failed``.
        value: The monitored metric of its kept epoch; of a pruned trial that of its last epoch, None where there is none.
        recipe: Name of its recipe.
        options: The options that were searched.
        seconds: Duration.
        default: Whether it is the default recipe.
        note: Why it failed, or that an equal one was not run again.
    """

    number: int
    state: str
    value: float | None
    recipe: str
    options: dict[str, Any]
    seconds: float
    default: bool = False
    note: str = ""

    @property
    def listed(self) -> list[str]:
        """The options as ``name=value``, without the recipe."""
        texts = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in self.options.items()}
        return [f"{name}={text}" for name, text in texts.items() if name != "recipe"]


@dataclass(frozen=True, repr=False)
class Tuning:
    """The result of ``tune``.

    Attributes:
        trials: All trials, in their order.
        best: The run of the best one, in the folder ``best``, a saved model.
        best_trial: The best trial; of equal ones the first.
        monitor: The metric that judges.
        lower: Whether its lowest value is the best.
        importance: Share of each searched option in what sets good trials apart (PED-ANOVA, Watanabe et al. 2023); empty if there
            are too few trials, or all have one value.
        dir: The folder: ``tune.json``, ``best``, ``history.png``, ``importance.png``, and the study.
    """

    trials: tuple[TrialResult, ...]
    best: Run
    best_trial: TrialResult
    monitor: str
    lower: bool
    dir: Path
    importance: dict[str, float] = field(default_factory=dict)

    @property
    def default(self) -> TrialResult | None:
        """The trial of the default recipe."""
        return next((trial for trial in self.trials if trial.default), None)

    @property
    def verdict(self) -> str:
        """The best trial beside the default recipe, in one sentence."""
        best, default = self.best_trial, self.default
        assert best.value is not None, "the best trial is complete"
        score = f"{self.monitor} {score_text(self.monitor, best.value)}"
        if default is None or default.value is None:
            return f"trial {best.number} is the best: {score}"
        if best.default:
            return f"the default recipe is the best of {len(self.trials)} trials: {score}"
        return (
            f"trial {best.number} is the best of {len(self.trials)}: {score}, the default recipe has "
            f"{score_text(self.monitor, default.value)}; both on the samples that chose it, so measure it on others"
        )

    def __repr__(self) -> str:
        return f"<Tuning {self.dir.name}: {self.verdict}, in {str(self.dir)!r}>"


def best_of(trials: Sequence[TrialResult], *, lower: bool) -> TrialResult | None:
    """Return the best complete trial, the first of equal ones; None if there is none."""
    known = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return min(known, key=lambda trial: ((trial.value or 0.0) if lower else -(trial.value or 0.0), trial.number), default=None)
