"""The result of a run, and its folder."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.engine.options.own_parts import NO_METRICS
from zoo.engine.rundir.lock import NAME as LOCK
from zoo.engine.rundir.lock import lock_folder, unlock_folder
from zoo.errors import DiskFullError, OptionError, OutputExistsError, OutputPermissionError, RunLockedError, SavedModelError, examples
from zoo.util.atomic_write import room_for, write_json, write_text
from zoo.util.numbers import score_text
from zoo.util.versions import versions

log = logging.getLogger("zoo")

RECORD = "run.json"
BLOCK = 4096  # bytes that a file of a few takes
FINISHED = "finished"  # entry of run.json; it has the history too, as metrics.jsonl may be cut off


@dataclass(frozen=True, repr=False)
class Run:
    """The result of ``fit``.

    Attributes:
        history: One record per epoch: phase, epoch, lr, train_loss, the validation metrics, seconds. An average or a mixture of
            values is validated after the last epoch, in a record with the next number and without lr and train_loss.
        metrics: Validation metrics of the kept epoch; empty without validation data.
        dir: The run's folder: a saved model, run.json, metrics.jsonl, curves.png where matplotlib is installed; checkpoint/ until the
            run is finished, and after that with ``keep_checkpoints=True``.
        kept: Number of the kept epoch, from 1.
        monitor: Metric that chose it.
        candidates: With ``recipe="auto"`` one row per candidate: name, recipe, epochs, score with its interval (low, high), best score
            of its epochs of tuning (tuned), seconds of all its runs, estimated peak of memory in bytes, largest number of parameters
            that trained, whether it was chosen, and a note, such as why it was left out. With ``DomainAdaptation(target,
            method="auto")`` one row per method: what each validator says, its votes, and a note. Empty for other runs.
        choice: The reason of the choice among them, in one line.
        baselines: With ``baselines=True`` a row per simpler method: name, metric that compares, score (or None), whether the run lost to
            it, and a note. Empty without.
        verdict: Whether the run is better than all of them, in one line.
    """

    history: list[dict[str, Any]]
    metrics: dict[str, float]
    dir: Path
    kept: int
    monitor: str
    candidates: list[dict[str, Any]] = field(default_factory=list)
    choice: str = ""
    baselines: list[dict[str, Any]] = field(default_factory=list)
    verdict: str = ""

    def __repr__(self) -> str:
        value = f" {self.monitor} {score_text(self.monitor, self.metrics[self.monitor])}," if self.monitor in self.metrics else ""
        return f"<Run {self.dir.name}:{value} epoch {self.kept} of {len(self.history)}, in {str(self.dir)!r}>"


def claim_folder(out: str | Path | None, backbone: str, recipe: str, *, resume: bool, record: str = RECORD) -> Path:
    """Make the folder of a run, check that it can be written, and lock it; ``release_folder`` unlocks it.

    Args:
        out: The folder; None takes the next free ``runs/<backbone>-<recipe>-001``.
        backbone: Name of the backbone; its last part is used.
        recipe: Name of the recipe.
        resume: Whether the folder may hold a run already.
        record: The file that makes a folder that of a run, or of a work of several runs.

    Raises:
        OptionError: If ``resume`` is set without ``out``.
        OutputExistsError: If it is a file, holds something other than a run, or holds a run and ``resume`` is not set.
        OutputPermissionError: If it cannot be written.
        RunLockedError: If another run is writing into it.
    """
    if out is None and resume:
        raise OptionError("resume (--resume) needs out (--out), the folder of the run to go on with")
    if out is None:
        return _next_free(f"{backbone.rpartition('/')[2]}-{recipe}")
    folder = _taken(Path(out))
    try:
        _check_held(folder, resume=resume, record=record)
    except OutputExistsError:
        unlock_folder(folder)
        raise
    return folder


def claim_own_folder(folder: Path, own: Collection[str]) -> None:
    """Make a folder that holds nothing but certain files, check that it can be written, and lock it; ``release_folder`` unlocks it.

    Args:
        folder: The folder.
        own: Names of the files and folders that an earlier call may have left in it.

    Raises:
        OutputExistsError: If it is a file, or holds others.
        OutputPermissionError: If it cannot be written.
        RunLockedError: If another process is writing into it.
    """
    _taken(folder)
    if others := [name for name in _held(folder) if name not in own]:
        unlock_folder(folder)
        raise OutputExistsError(f"{str(folder)!r} holds other files: {examples(others)}; choose another folder (out, --out)")


def _taken(folder: Path) -> Path:
    """Return a folder, made if need be, after it was locked."""
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        kind = "a file" if folder.exists() else "a link to nothing"
        raise OutputExistsError(f"{str(folder)!r} is {kind}; give the name of a folder")
    _take(folder)
    return folder


def _check_held(folder: Path, *, resume: bool, record: str) -> None:
    held = _held(folder)
    if held and not resume:
        remedy = "choose another folder, or go on with resume=True (--resume)" if record in held else "choose another folder"
        raise OutputExistsError(f"{str(folder)!r} exists and is not empty; {remedy}")
    if held and record not in held:
        raise OutputExistsError(f"{str(folder)!r} holds no run to resume (no {record}); choose the folder of a run, or a new one")


def _held(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != LOCK)


def _take(folder: Path, *, exist_ok: bool = True) -> None:
    """Make a folder and lock it, which fails if it cannot be written."""
    existed = folder.exists()
    try:
        with room_for(folder, BLOCK):
            folder.mkdir(parents=True, exist_ok=exist_ok)
            lock_folder(folder)
    except (RunLockedError, FileExistsError):
        raise
    except DiskFullError:
        if not existed:
            with suppress(OSError):  # not made, or another process uses it
                folder.rmdir()
        raise
    except OSError as error:
        raise OutputPermissionError(
            f"{str(folder)!r} cannot be written: {error.strerror}; choose a folder of your own (out, --out)"
        ) from error


def _next_free(stem: str) -> Path:
    for number in range(1, 10_000):
        folder = Path("runs") / f"{stem}-{number:03d}"
        try:
            _take(folder, exist_ok=False)  # another run has just made it
        except FileExistsError:
            continue
        return folder
    raise OutputExistsError(f"runs/{stem}-001 to -9999 are all taken; give another (out, --out)")


def release_folder(folder: Path, *, record: str = RECORD) -> None:
    """Unlock a claimed folder, and remove it if it holds nothing but its record, so that the same call can be retried."""
    held = _held(folder) if folder.is_dir() else ["no folder"]
    if held in ([], [record]):
        (folder / record).unlink(missing_ok=True)
        unlock_folder(folder)
        with suppress(OSError):  # another run may have just claimed it
            folder.rmdir()
    unlock_folder(folder)


def environment(plugin: str = "") -> dict[str, str]:
    """Return the versions of the libraries, the plugin and the platform."""
    return versions([plugin]) | {"platform": platform.platform()}


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Rewrite ``metrics.jsonl`` with one line per epoch; a line that was cut off is replaced.

    A failure is logged and does not end the run, as the checkpoint has the same records.
    """
    try:
        write_text(folder / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in history))
    except OSError as error:
        log.warning("the run goes on without its record: %s", error)


def write_run(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``run.json``: the resolved configuration, the data, the versions."""
    write_json(folder / "run.json", dict(record))


def read_finished(folder: Path) -> Run | None:
    """Return the result of the run in a folder from run.json; None if it is not finished, or there is none.

    Raises:
        SavedModelError: If the record is damaged.
    """
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8")) if (folder / "run.json").is_file() else {}
        if FINISHED not in record:
            return None
        history, kept = list(record[FINISHED]["history"]), int(record[FINISHED]["kept"])
        auto = record.get("auto") or record.get("adaptation", {})
        monitor, rows, choice = str(record[FINISHED]["monitor"]), list(auto.get("candidates", ())), str(auto.get("reason", ""))
        return Run(history, metrics_of(history, kept), folder, kept, monitor, rows, choice)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        remedy = "start anew in another folder (out, --out)"
        raise SavedModelError(f"the record of the finished run in {str(folder)!r} cannot be read ({error}); {remedy}") from error


def metrics_of(history: Sequence[Mapping[str, Any]], kept: int) -> dict[str, float]:
    """Return the validation metrics of one epoch of a history."""
    record = next(record for record in history if record["epoch"] == kept)
    return {name: value for name, value in record.items() if name not in NO_METRICS}
