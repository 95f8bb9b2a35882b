"""The study of Optuna behind a search: its storage, its identity, its sampler and pruner, and its deadline."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from zoo.engine.options.begun import option_differences
from zoo.errors import OptionError, OutputExistsError, SavedModelError, did_you_mean, fault_list
from zoo.select.tuning_search.dimensions import Choice
from zoo.select.tuning_search.pruners import PRUNERS
from zoo.select.tuning_search.space import Space
from zoo.util.differences import record_differences
from zoo.util.extras import require_extra

JOURNAL = "study.journal"
IDENTITY = "zoo"  # attribute of a study: what all its trials have in common
DEADLINE = "deadline"  # attribute of a study: when no trial begins any more, in seconds since the epoch; None for never


def open_study(
    storage: str | None, folder: Path, name: str, identity: Mapping[str, Any], *, lower: bool, pruner: str, seed: int, resume: bool
) -> Any:
    """Return the study in a storage, a new one where there is none.

    Args:
        storage: A journal file, an SQLite file (``.db``, ``.sqlite``) or the URL of a database; None for a journal in ``folder``.
        folder: The folder of the search.
        name: Name of the study in its storage.
        identity: What all trials of a study have in common.
        lower: Whether the lowest value is the best.
        pruner: Name of the pruner.
        seed: Seed of the sampler.
        resume: Whether a study that is there may be gone on with.

    Raises:
        MissingExtraError: If Optuna is not installed.
        OptionError: If the storage cannot be opened, or there is no such pruner.
        OutputExistsError: If there is a study, and ``resume`` is not set.
        SavedModelError: If the study is of other data, another backbone or another space, all differences of which are named, or was made
            by another program.
    """
    require_extra("tune", "zoo tune")
    if pruner not in PRUNERS:
        raise OptionError(f"pruner is {pruner!r}{did_you_mean(str(pruner), PRUNERS)}; it is one of: {', '.join(PRUNERS)}")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where = storage or str(folder / JOURNAL)
    plain = json.loads(json.dumps(dict(identity)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            opened = _storage(where)
            there = name in optuna.get_all_study_names(opened)
            direction = optuna.study.StudyDirection.MINIMIZE if lower else optuna.study.StudyDirection.MAXIMIZE
            study = optuna.create_study(storage=opened, study_name=name, direction=direction, load_if_exists=True, pruner=_pruner(pruner))
        except OptionError:
            raise
        except Exception as error:  # of a database or a file: any
            raise OptionError(f"the storage {where!r} cannot be opened: {type(error).__name__}: {error}") from error
        seed = hash((seed, len(study.get_trials(deepcopy=False)), os.getpid() if resume else 0)) % 2**32
        study.sampler = optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)
    known = study.user_attrs.get(IDENTITY)
    if there and known is None and (study.direction != direction or study.get_trials(deepcopy=False)):
        raise SavedModelError(f"the study {name!r} in {where!r} is none of zoo tune; name another study (--study) or storage (--storage)")
    if there and known is not None:
        _check_same(where, name, plain, known)
        if not resume and study.get_trials(deepcopy=False):
            raise OutputExistsError(f"{where!r} holds the study {name!r}; go on with resume=True (--resume), or name another (--storage)")
    else:
        study.set_user_attr(IDENTITY, plain)
    return study


def _storage(where: str) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    if "://" in where:
        return optuna.storages.RDBStorage(where)
    path = Path(where)
    if not path.parent.is_dir():
        raise OptionError(f"the storage {where!r} cannot be opened: there is no folder {str(path.parent)!r}")
    if path.suffix.lower() in (".db", ".sqlite", ".sqlite3"):
        return optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}", engine_kwargs={"connect_args": {"timeout": 60}})
    # Not the lock that is the default: as a symbolic link with a relative target it is never released after its owner was killed.
    lock = JournalFileOpenLock(str(path))
    _drop_cut_line(path, lock)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _drop_cut_line(path: Path, lock: Any) -> None:
    """Cut off a last line without an end, which a full disk or a lost machine leaves: the next line would join it, and none be read."""
    if not _is_cut(path):
        return
    lock.acquire()
    try:
        if _is_cut(path):  # still, now that nobody writes
            with path.open("r+b") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
    finally:
        lock.release()


def _is_cut(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _pruner(name: str) -> Any:
    import optuna

    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    return optuna.pruners.HyperbandPruner() if name == "hyperband" else optuna.pruners.NopPruner()


def _check_same(where: str, name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    searched = [set(one.get("space") or ()) for one in (ours, theirs)]
    # An option that one of two spaces has is fixed in the other alone, which the difference of the spaces says.
    if faults := search_differences(theirs, ours, moved=searched[0] ^ searched[1]):
        remedy = "Give the same as before, or name another storage (--storage) or study (--study)"
        raise SavedModelError(fault_list(f"the study {name!r} in {where!r} is another one:", faults, remedy))


def search_differences(before: Mapping[str, Any], now: Mapping[str, Any], *, moved: Collection[str] = ()) -> list[str]:
    """Return how two records of a search differ, in words; an option that an earlier version did not have counts as its default.

    Args:
        before: The earlier record, in JSON's form; ``options`` are those of all trials.
        now: The present one.
        moved: Options of which nothing is said.
    """
    options = [dict(one.get("options") or {}) for one in (before, now)]
    theirs, ours = ({name: value for name, value in one.items() if name not in moved} for one in options)
    rest = [{name: value for name, value in one.items() if name != "options"} for one in (before, now)]
    odd = [line.removeprefix("search.") for line in record_differences("search", *rest)]
    return option_differences(ours, theirs) + odd


def suggested(trial: Any, space: Space) -> dict[str, Any]:
    """Return the point of a trial: a value for each dimension that has a meaning for its recipe."""
    point: dict[str, Any] = {}
    dimensions = sorted(space.dimensions.items(), key=lambda one: one[0] != "recipe")  # the recipe decides which others there are
    for name, dimension in dimensions:
        if name != "recipe" and not space.applies(name, space.recipe(point.get("recipe", space.default.name))):
            continue
        if isinstance(dimension, Choice):
            point[name] = trial.suggest_categorical(name, dimension.values)
        elif dimension.whole:
            point[name] = trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
        else:
            point[name] = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    return point


def set_deadline(study: Any, seconds: float | None) -> None:
    """Note until when trials may begin, for the processes that join; None for no end."""
    study.set_user_attr(DEADLINE, None if seconds is None else time.time() + seconds)


def is_over(study: Any) -> bool:
    """Return whether the time of a study is over, as the process that leads it has set it."""
    deadline = study.user_attrs.get(DEADLINE)
    return deadline is not None and time.time() >= deadline
