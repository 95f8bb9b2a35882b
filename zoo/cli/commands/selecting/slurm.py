"""Workers of a search as jobs of Slurm, submitted by submitit (the extra ``slurm``)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.engine.runtime.signals import StopFlag
from zoo.errors import OptionError
from zoo.util.extras import require_extra

POLL_SECONDS = 2.0
LOGS = "slurm"  # folder of the jobs' output


def slurm_settings(text: str) -> dict[str, Any]:
    """Parse ``slurm_partition=gpu,gpus_per_node=1``, parameters of ``submitit.AutoExecutor``.

    Raises:
        MissingExtraError: If submitit is not installed.
        OptionError: If an entry has no ``=``, or there is no Slurm on this machine.
    """
    require_extra("slurm", "--slurm")
    found: dict[str, Any] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = entry.partition("=")
        if not (sign and name.strip() and value.strip()):
            raise OptionError(f"--slurm {entry!r} is not of the form NAME=VALUE, such as slurm_partition=gpu,timeout_min=240")
        found[name.strip()] = int(value) if value.strip().isdecimal() else value.strip()
    if "cluster" not in found and shutil.which("sbatch") is None:
        raise OptionError("--slurm: there is no sbatch on this machine; start it where jobs are submitted, or take --workers alone")
    return found


@contextmanager
def slurm_workers(command: Sequence[str], count: int, settings: dict[str, Any], folder: Path, stop: StopFlag) -> Iterator[None]:
    """Submit jobs that run a command; the context waits for them, and cancels them after an error or a signal.

    Args:
        command: The command of each job, which joins the search.
        count: Number of jobs.
        settings: Parameters of ``submitit.AutoExecutor``; ``cluster`` is its kind.
        folder: The folder of the search, on a disk that all machines share.
        stop: Set by a signal.

    Raises:
        OptionError: If submitit has no such parameter or cluster, or Slurm refuses a job.
    """
    import submitit  # type: ignore[import-not-found,import-untyped,unused-ignore]  # an extra

    given, jobs = dict(settings), list[Any]()
    try:
        executor = submitit.AutoExecutor(folder=_new_folder(folder / LOGS), cluster=given.pop("cluster", "slurm"))
        executor.update_parameters(**{"name": "zoo-tune", "timeout_min": 24 * 60, **given})
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise OptionError(f"--slurm: {error}; see submitit.AutoExecutor") from error
    try:
        for number in range(count):
            jobs.append(_submitted(submitit, executor, command, number))
        yield
        while not stop.signum and not all(job.done() for job in jobs):
            time.sleep(POLL_SECONDS)
    finally:
        for number, job in enumerate(jobs, 2):
            if not job.done():
                job.cancel()  # its trial is marked as failed when the search ends
            elif (ended := _ending(job)) != "0":
                line = f"worker {number} (job {job.job_id}) ended with {ended}; its trial counts as failed, and the search goes on"
                print(line, file=sys.stderr)


def _new_folder(logs: Path) -> Path:
    """Return a new folder, into which its owner alone may write: submitit reads results of jobs there by pickle."""
    logs.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=logs))


def _submitted(submitit: Any, executor: Any, command: Sequence[str], number: int) -> Any:
    """Return a submitted job.

    Raises:
        OptionError: If Slurm refuses it, with its words.
    """
    try:
        return executor.submit(subprocess.call, list(command))
    except (submitit.core.utils.FailedJobError, subprocess.SubprocessError, OSError) as error:
        reason = " ".join(str(error).split())
        remedy = "correct --slurm, such as slurm_partition, slurm_account or timeout_min"
        raise OptionError(f"--slurm: job {number + 1} was refused: {reason}; {remedy}") from error


def _ending(job: Any) -> str:
    """Return the exit code of a job that is done, or why it has none."""
    error = job.exception()
    return str(job.result()) if error is None else f"{type(error).__name__}, see {job.paths.stderr}"
