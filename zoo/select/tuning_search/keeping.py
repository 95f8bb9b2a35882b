"""The run of the best trial, and the importance of each option."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from zoo.engine.rundir.run_folder import Run, read_finished
from zoo.select.tuning_search.result import TrialResult
from zoo.select.tuning_search.trials import Trials
from zoo.util.atomic_write import write_json

log = logging.getLogger("zoo")


def best_run(runner: Trials, best: TrialResult, folder: Path) -> Run:
    """Return the run of the best trial in the folder ``best``: that of the trial, or, if another machine has it, a new one."""
    target = folder / "best"
    kept = target / "trial.json"
    if kept.is_file() and json.loads(kept.read_text(encoding="utf-8")).get("number") == best.number:
        run = read_finished(target)
    else:
        shutil.rmtree(target, ignore_errors=True)
        source = next((path for path in runner.folders(best) if (path / "config.json").is_file()), None)
        if source is not None:
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("run.lock"))
        else:
            log.info("trial %d was run elsewhere: it is run again in %r", best.number, str(target))
            runner.again(best, target)
        write_json(kept, vars(best))
        run = read_finished(target)
    assert run is not None, "a complete trial is a finished run"
    return run


def importance_of(study: Any) -> dict[str, float]:
    """Return the share of each option in the differences between complete trials; empty where there are too few."""
    import optuna

    values = {trial.value for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))}
    if len(values) < 2:
        log.info("the importance of the options is not known: all trials have the same value")
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about options that few trials have
            found = optuna.importance.get_param_importances(study)
    except Exception as error:  # of trials that are equal, or too few: any
        log.info("the importance of the options is not known: %s", error)
        return {}
    return {name: float(share) for name, share in found.items() if np.isfinite(share)}
