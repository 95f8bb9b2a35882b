"""Experiment trackers of Accelerate and the user's own function, called with each record of the history."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.engine.options.own_parts import name_of
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.runtime.device import random_state, restore_random_state
from zoo.engine.runtime.signals import Stopped
from zoo.errors import OptionError, OwnPartError, ZooError, did_you_mean

log = logging.getLogger("zoo")


class EpochReports:
    """Calls trackers and ``on_epoch`` on the first rank; an error there is raised on all.

    Args:
        context: The conditions of the run.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._trackers: list[Any] = []

    def open(self) -> None:
        """Start the trackers."""
        context = self._context
        with context.ranks.together():
            if context.ranks.main:
                self._trackers = open_trackers(context.own.log_with, context.folder, context.config.to_dict())

    def report(self, record: dict[str, Any]) -> None:
        """Call all with a record of the history."""
        state = random_state()  # user code may draw random numbers, and a resumed run does not report this epoch again
        try:
            with self._context.ranks.together():
                if self._context.ranks.main:
                    log_record(self._trackers, record)
                    self._call_own(record)
        finally:
            restore_random_state(state)

    def _call_own(self, record: dict[str, Any]) -> None:
        function = self._context.own.on_epoch
        try:
            if function is not None:
                function(dict(record))
        except KeyboardInterrupt as error:  # of the function itself: during a run, signals only set the flag
            self._context.stop.signum = signal.SIGINT
            raise Stopped from error
        except Exception as error:
            # Optuna's TrialPruned is its way to end a trial.
            if isinstance(error, ZooError) or type(error).__module__.partition(".")[0] == "optuna":
                raise
            failed = OwnPartError.of(f"on_epoch ({name_of(function)})", error)
            failed.epoch = record["epoch"]
            raise failed from error

    def close(self) -> None:
        """Finish the trackers."""
        close_trackers(self._trackers)


def open_trackers(wanted: Sequence[Any], folder: Path, config: Mapping[str, Any]) -> list[Any]:
    """Return the trackers of a run, started, with its configuration.

    Args:
        wanted: Names that Accelerate knows, such as ``tensorboard``, ``wandb`` or ``mlflow``, or objects of its ``GeneralTracker``.
        folder: The run's folder; trackers that write files do so below it.
        config: The configuration of the run.

    Raises:
        OptionError: If there is no such tracker, or its package is not installed.
        OwnPartError: If one fails at its start.
    """
    if not wanted:
        return []
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers  # type: ignore[import-untyped]  # no types

    known = {str(getattr(name, "value", name)): kind for name, kind in LOGGER_TYPE_TO_CLASS.items()}
    installed = {str(getattr(name, "value", name)) for name in get_available_trackers()}
    faults, found = [], []
    for one in wanted:
        if isinstance(one, GeneralTracker):
            found.append(one)
        elif not isinstance(one, str) or one not in known:
            faults.append(f"there is no tracker {one!r}{did_you_mean(str(one), known)}; there are: {', '.join(known)}")
        elif one not in installed:
            faults.append(f"the package of tracker {one!r} is not installed; pip install {one}")
        else:
            kind = known[one]
            found.append(kind(folder.name, **({"logging_dir": str(folder)} if kind.requires_logging_directory else {})))
    if faults:
        raise OptionError(f"log_with: {'; '.join(faults)}")
    try:
        for tracker in found:
            if hasattr(tracker, "start"):
                tracker.start()
            tracker.store_init_configuration(_plain(config))
    except BaseException as error:
        close_trackers(found)
        if isinstance(error, Exception):
            raise OwnPartError.of(f"log_with: the start of tracker {getattr(tracker, 'name', tracker)!r}", error) from error
        raise
    return found


def log_record(trackers: Sequence[Any], record: Mapping[str, Any]) -> None:
    """Give every tracker a record of the history; one that fails is logged and does not end the run."""
    values = {name: value for name, value in record.items() if name not in ("epoch", "phase")}
    for tracker in trackers:
        try:
            tracker.log(values, step=record["epoch"])
        except Exception as error:
            log.warning("tracker %s failed: %s: %s", getattr(tracker, "name", tracker), type(error).__name__, error)


def close_trackers(trackers: Sequence[Any]) -> None:
    """Finish every tracker."""
    for tracker in trackers:
        try:
            tracker.finish()
        except Exception as error:
            log.warning("tracker %s failed: %s: %s", getattr(tracker, "name", tracker), type(error).__name__, error)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as numbers, booleans and strings, as trackers need it."""
    return {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in config.items()}
