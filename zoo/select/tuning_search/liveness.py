"""Signs of life of the processes that run trials, and the trials of those that died."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

UNCOUNTED = "uncounted"  # attribute of a trial that was cut off by no fault of its own
DIED = "its process died"  # the value of that attribute for trials that are not gone on with
WORKER, SINCE, SEEN = "worker", "since", "seen"
SILENCE = 24 * 3600.0  # seconds without a sign of life after which a worker of another machine counts as dead


def sign_of_life(trial: Any) -> None:
    """Note which process runs a trial, and when it was alive."""
    trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
    trial.set_user_attr(SINCE, _start_of(os.getpid()))
    trial.set_user_attr(SEEN, time.time())


def fail_dead(study: Any) -> list[int]:
    """Mark the trials of dead workers as failed, and return their numbers; they do not count, and others take their place."""
    import optuna

    failed = []
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        if _is_dead(trial):
            # By the storage, which refuses a trial that another worker marks at the same time with this error; ``tell`` has several.
            with suppress(optuna.exceptions.UpdateFinishedTrialError):
                study._storage.set_trial_user_attr(trial._trial_id, UNCOUNTED, DIED)
                if study._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL):
                    failed.append(trial.number)
    return failed


def counted(study: Any) -> list[Any]:
    """Return the trials that count: those that run or ended, without those that were cut off by no fault of their own."""
    import optuna

    waiting = optuna.trial.TrialState.WAITING
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != waiting and UNCOUNTED not in trial.user_attrs]


def _is_dead(trial: Any) -> bool:
    host, _, process = str(trial.user_attrs.get(WORKER, "")).rpartition(":")
    if not process.isdigit():
        started = trial.datetime_start
        return started is not None and time.time() - started.timestamp() > SILENCE
    if host != socket.gethostname():
        return time.time() - float(trial.user_attrs.get(SEEN, 0.0)) > SILENCE
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return False
    except OSError:
        return True
    # The number may be that of another process by now: after a restart of a container it often is this one's own.
    return str(trial.user_attrs.get(SINCE, "")) not in ("", _start_of(int(process)))


def _start_of(process: int) -> str:
    """Return when a process of this machine started, in ticks since the machine did; empty where ``/proc`` does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "ended" if fields[0] == "Z" else fields[19]  # Z: killed, and its parent has not asked for its exit code yet
    except (OSError, IndexError):
        return ""
