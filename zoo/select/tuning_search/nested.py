"""Nested cross-validation of a search: in each fold it chooses without the held-out samples, which then judge what it chose."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.data.splits.folds import cross_validation_folds, digest_of
from zoo.data.splits.train_valid import hold_out
from zoo.data.table import Table
from zoo.engine.inference.evaluate import evaluate
from zoo.engine.loading.sources import check_tables, open_for_fit
from zoo.engine.loading.start_method import refuse_second_run
from zoo.engine.options.config import Config
from zoo.engine.rundir.run_folder import claim_folder, release_folder
from zoo.engine.runtime.progress import Progress, in_time_units
from zoo.engine.runtime.signals import going_on
from zoo.engine.train.fit import check_kinds
from zoo.engine.train.job import resolve_job
from zoo.engine.train.messages import SKIPPED
from zoo.errors import InterruptedRunError, SavedModelError, fault_list
from zoo.models.task_model import TaskModel
from zoo.saved.load import load
from zoo.select.crossval.cross_validate import without_test
from zoo.select.crossval.result import CrossValidation, FoldResult
from zoo.select.tuning_search.arguments import begun_search
from zoo.select.tuning_search.result import RECORD as SEARCH
from zoo.select.tuning_search.study import search_differences
from zoo.select.tuning_search.tune import run_tuning
from zoo.util.atomic_write import write_json
from zoo.util.numbers import score_text

RECORD = "nested.json"


@dataclass(frozen=True, repr=False)
class Nested(CrossValidation):
    """The result of ``tune_nested``; ``metrics`` is empty, as every fold has a model of its own kind.

    Attributes:
        chosen: What the search chose in each fold, in words.
    """

    chosen: tuple[str, ...] = ()


def tune_nested(
    model: TaskModel,
    data: Any,
    *,
    folds: int = 3,
    trials: int | None = None,
    budget: str | float | None = None,
    search: Mapping[str, Any] | None = None,
    only: Collection[str] | None = None,
    pruner: str = "median",
    recipe: Any = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Nested:
    """Measure what ``tune`` reaches on samples that chose nothing, by a cross-validation around it (Varma and Simon 2006).

    In each fold a fifth of the training samples judges the trials, and the best trial is measured on the samples of the fold. The
    result is an estimate of the procedure; the model to use is that of ``tune`` on all samples.

    Args:
        model: As for ``tune``.
        data: Any source with labels; rows of a split called test are left out.
        folds: Number of folds, each of which takes a whole search.
        trials: Of each search, as for ``tune``.
        budget: Of each search, as for ``tune``.
        search: As for ``tune``.
        only: As for ``tune``.
        pruner: As for ``tune``.
        recipe: As for ``tune``.
        seed: Of the folds, and as for ``tune``.
        out: The folder; None takes the next free one below ``runs/``.
        resume: Go on in the fold where it stopped.
        quiet: Show nothing.
        **options: As for ``fit``.

    Raises:
        MissingExtraError: If Optuna is not installed.
        OptionError: As ``tune``.
        DataError: For fewer samples, groups or samples of the largest class than folds.
        SavedModelError: If what is resumed had other data, folds or options.
        InterruptedRunError: After Ctrl-C or SIGTERM.
    """
    refuse_second_run()
    check_kinds(out, resume=resume, quiet=quiet)
    given, job = begun_search(
        "tune_nested", model, options | {"seed": seed}, recipe=recipe, valid=None, trials=trials, budget=budget, quiet=quiet
    )
    how = {"recipe": recipe, "trials": trials, "budget": budget, "search": search, "only": only, "pruner": pruner}
    opening: Callable[[], Table] = lambda: open_for_fit(model, data, False, job.config)[0]  # noqa: E731
    return run_nested(model, given, opening, how, folds=folds, out=out, resume=resume, quiet=quiet)


def run_nested(
    model: TaskModel,
    options: Mapping[str, Any],
    open_all: Callable[[], Table],
    how: Mapping[str, Any],
    *,
    folds: int,
    out: str | Path | None,
    resume: bool,
    quiet: bool,
) -> Nested:
    """Search in each fold of a table; see ``tune_nested``.

    Args:
        model: The model.
        options: The given options of ``fit``.
        open_all: Opens all samples.
        how: Arguments of ``run_tuning``: recipe, trials, budget, search, only, pruner.
        folds: Number of folds.
        out: The folder.
        resume: Go on in it.
        quiet: Show nothing.
    """
    config = resolve_job(model, None, None, recipe=how["recipe"], options=dict(options), objective=None, advises=False).config
    folder = claim_folder(out, model.spec.name, "nested", resume=resume, record=RECORD)
    try:
        table = check_tables(model, (without_test(open_all()), None), config)[0].shared_origin()
        parts = cross_validation_folds(table, folds, seed=config.seed, flag="--nested")
        identity = {"folds": folds, "sha256": digest_of(parts), "samples": len(table)} | _search(config, how)
        found = _known(folder, identity)
        progress = Progress(quiet, "")
        for number, fold in enumerate(parts[len(found.folds) :], len(found.folds)):
            place, train = folder / f"fold-{number}", table.select(fold.train)
            again = (place / SEARCH).is_file()
            where: dict[str, Any] = {"storage": None, "study": "zoo", "out": place, "resume": again, "quiet": quiet}
            try:
                tuned = run_tuning(model, options, lambda train=train: hold_out(train, config.seed), **how, **where)  # type: ignore[misc]  # the default binds the fold
            except InterruptedRunError as error:
                raise going_on(error, folder) from error
            assert tuned is not None, "this process leads the search"
            metrics = dict(evaluate(load(place / "best"), table.select(fold.held_out), remedy=SKIPPED))
            seconds = round(sum(trial.seconds for trial in tuned.trials), 3)
            result = FoldResult(number, 0, len(fold.train), len(fold.held_out), metrics, seconds)
            chosen = "the default recipe" if tuned.best_trial.default else " ".join([tuned.best_trial.recipe, *tuned.best_trial.listed])
            found = Nested((*found.folds, result), tuned.monitor, {}, folder, (*found.chosen, chosen))
            _write(folder, identity, found, finished=len(found.folds) == len(parts))
            value = score_text(tuned.monitor, metrics[tuned.monitor]) if tuned.monitor in metrics else "undefined"
            progress.note(f"outer fold {number + 1}/{len(parts)}: {tuned.monitor} {value}, {in_time_units(seconds)}: {chosen}")
        return found
    finally:
        release_folder(folder, record=RECORD)


def _search(config: Config, how: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the searches of all folds have in common, in JSON's form."""
    options = {name: value for name, value in config.to_dict().items() if name not in ("workers", "device")}
    told = {name: value for name, value in how.items() if name not in ("recipe", "search", "only")}
    only = how["only"]  # words of a command, names, or None
    told["only"] = sorted(only) if only is not None and not isinstance(only, str) else only
    told["search"] = {name: str(value) for name, value in (how["search"] or {}).items()}
    found: dict[str, Any] = json.loads(json.dumps({"options": options} | told))
    return found


def _known(folder: Path, identity: dict[str, Any]) -> Nested:
    """Return the folds that an earlier call finished.

    Raises:
        SavedModelError: If they are of other data, folds or options, or the record is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        write_json(path, {"nested": identity, "metric": "", "folds": [], "chosen": [], "finished": False})
        return Nested((), "", {}, folder)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        folds, metric, chosen = tuple(FoldResult(**one) for one in record["folds"]), str(record["metric"]), tuple(record["chosen"])
        before = record["nested"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SavedModelError(f"{str(path)!r} cannot be read ({error!r}); start anew in another folder (out, --out)") from error
    if odd := search_differences(before, identity):
        raise SavedModelError(
            fault_list(f"the nested search in {str(folder)!r} cannot go on:", odd, "Give the same as before, or start anew (out, --out)")
        )
    return Nested(folds, metric, {}, folder, chosen)


def _write(folder: Path, identity: dict[str, Any], found: Nested, *, finished: bool) -> None:
    folds = [asdict(fold) for fold in found.folds]
    write_json(
        folder / RECORD, {"nested": identity, "metric": found.metric, "folds": folds, "chosen": list(found.chosen), "finished": finished}
    )
