"""Workers of a search as jobs of Slurm, submitted by submitit (the extra ``slurm``)."""

from __future__ import annotations

import shutil
import subprocess
import sys
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
        found[name.strip()] = int(value) if value.strip().isdigit() else value.strip()
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
        OptionError: If submitit has no such parameter.
    """
    import submitit  # type: ignore[import-not-found,import-untyped,unused-ignore]  # an extra

    given = dict(settings)
    executor = submitit.AutoExecutor(folder=folder / LOGS, cluster=given.pop("cluster", "slurm"))
    try:
        executor.update_parameters(**{"name": "zoo-tune", "timeout_min": 24 * 60, **given})
    except (NameError, TypeError, ValueError) as error:
        raise OptionError(f"--slurm: {error}; see submitit.AutoExecutor") from error
    jobs = [executor.submit(subprocess.call, list(command)) for _ in range(count)]
    try:
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


def _ending(job: Any) -> str:
    """Return the exit code of a job that is done, or why it has none."""
    error = job.exception()
    return str(job.result()) if error is None else f"{type(error).__name__}, see {job.paths.stderr}"
