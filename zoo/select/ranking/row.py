"""The scores and costs of one candidate, and their form in files. No torch here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo.errors import SavedModelError
from zoo.util.atomic_write import write_json
from zoo.util.numbers import nan_for_none, without_nan

FOLDER = "candidates"


@dataclass(frozen=True)
class Judged:
    """A metric on held-out samples.

    Attributes:
        score: Its value.
        low: Lower end of its 95 % interval, None where the metric has none.
        high: Upper end.
        draws: The metric in the draws of the bootstrap, the same draws for all candidates; NaN where it is undefined.
        seconds: What it took.
        epochs: Epochs of tuning; 0 for the probe.
    """

    score: float
    low: float | None
    high: float | None
    draws: tuple[float, ...]
    seconds: float
    epochs: int = 0


@dataclass(frozen=True)
class Row:
    """What is known of one candidate.

    Attributes:
        name: Name of the backbone.
        samples: Samples that it was scored on.
        parameters: Parameters of the backbone.
        accuracy: Published accuracy on ImageNet in percent, or None.
        latency_ms: Milliseconds of one forward of one sample, the median of a few.
        memory: Bytes of the weights, and of one forward of one sample.
        throughput: Samples per second of the pass over the data, or of one batch where features were known.
        seconds: Time of all that was done for it, but tuning.
        pass_seconds: Time of the feature passes among them.
        probe: Cross-validated linear probe.
        scores: Further scores by name, higher is better.
        tuned: Short fine-tuning, or None.
        folder: Folder of the saved model that it is, or empty.
    """

    name: str
    samples: int
    parameters: int
    accuracy: float | None
    latency_ms: float
    memory: int
    throughput: float
    seconds: float
    pass_seconds: float
    probe: Judged
    scores: Mapping[str, float]
    tuned: Judged | None = None
    folder: str = ""

    @property
    def judged(self) -> Judged:
        """The tuned result where there is one, else the probe."""
        return self.tuned or self.probe

    def with_tuned(self, tuned: Judged | None) -> Row:
        """Return the row with a result of tuning, or without one."""
        return replace(self, tuned=tuned)

    def to_dict(self, *, draws: bool = False) -> dict[str, Any]:
        """Return plain data, None for numbers that are not finite; ``draws`` only for files that are read again."""
        plain = dict(vars(self))  # asdict copies the thousand draws one by one
        for key, judged in (("probe", self.probe), ("tuned", self.tuned)):
            plain[key] = judged and {name: value for name, value in vars(judged).items() if draws or name != "draws"}
        return without_nan(plain)  # type: ignore[no-any-return]  # a dict stays one


def file_of(folder: Path, name: str, samples: int) -> Path:
    """Return the file of a candidate's row on so many samples."""
    return folder / FOLDER / f"{re.sub(r'[^A-Za-z0-9.+-]', '_', name)}-{samples}.json"


def write_row(path: Path, row: Row) -> None:
    """Write a row to be read by ``read_row``."""
    path.parent.mkdir(exist_ok=True)
    write_json(path, row.to_dict(draws=True))


def read_row(path: Path) -> Row | None:
    """Return the row in a file, None if there is none.

    Raises:
        SavedModelError: If it is damaged.
    """
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        judged = {key: record[key] and _judged(record[key]) for key in ("probe", "tuned")}
        scores = {name: nan_for_none(value) for name, value in record["scores"].items()}
        return Row(**{**record, **judged, "scores": scores})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SavedModelError(f"{str(path)!r} cannot be read ({error}); remove it, and the candidate is scored again") from error


def _judged(record: dict[str, Any]) -> Judged:
    return Judged(**{**record, "score": nan_for_none(record["score"]), "draws": tuple(map(nan_for_none, record["draws"]))})
