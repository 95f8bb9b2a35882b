"""The function behind ``zoo rank``."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from zoo.data.images.pixel_store import PixelStore
from zoo.declare import Image
from zoo.engine.cache.feature_memo import content_summary
from zoo.engine.loading.start_method import refuse_second_run
from zoo.engine.options.begun import option_differences
from zoo.engine.options.config import Config, sized_for
from zoo.engine.options.model_selection import resolve_monitor
from zoo.engine.options.resolve import resolve
from zoo.engine.rundir.run_folder import claim_folder, release_folder, write_run
from zoo.engine.runtime.device import make_accelerator
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.signals import Stopped, ending_early, how_to_go_on, stop_signals
from zoo.engine.train.fit import check_kinds
from zoo.errors import InterruptedRunError, OptionError, SavedModelError, fault_list, fault_message, faults_of
from zoo.models.backbone import Backbone
from zoo.select.log_once import each_message_once
from zoo.select.ranking.candidates import OPTIONS, checked_candidates
from zoo.select.ranking.features import Conditions
from zoo.select.ranking.limits import Limits
from zoo.select.ranking.opening import Tables, open_ranked
from zoo.select.ranking.picture import draw_ranking
from zoo.select.ranking.ranking import Ranking
from zoo.select.ranking.search import Search
from zoo.select.recipe_search.halving import seconds_of
from zoo.tasks.find import find_task
from zoo.util.atomic_write import write_json
from zoo.weights.hub import without_network

log = logging.getLogger("zoo")


def rank(
    data: Any,
    valid: Any = None,
    *,
    candidates: Any = None,
    task: str = "single-label",
    max_params: float | None = None,
    max_latency_ms: float | None = None,
    max_memory: float | str | None = None,
    license: str | None = None,
    budget: str | float | None = None,
    offline: bool = False,
    top: int = 3,
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Ranking:
    """Order backbones by how well they suit labelled data; see docs/rank.md.

    The features of each are computed once, and kept in the user's cache for later calls and runs. On them a linear probe is
    cross-validated, beside scores of transferability; latency, memory and throughput are measured. With a budget the candidates may
    be read on a part of the samples first, of which the better half goes on, and the best are fine-tuned briefly.

    Args:
        data: Any source with labels, as for ``fit``.
        valid: Data that judge tuning, as for ``fit``; False to have none.
        candidates: Names, globs, folders of saved models or ``Backbone`` objects; None for a prior list for the kind of data.
        task: ``single-label``, ``multi-label`` or ``regression``.
        max_params: Most parameters of the backbone.
        max_latency_ms: Most milliseconds of one sample on this machine.
        max_memory: Most bytes of weights and one sample's forward, or such as ``"500MB"``.
        license: ``permissive``, or an SPDX identifier of the weights.
        budget: A duration, such as ``10min``, or seconds; None reads all candidates on all samples and tunes none.
        offline: Leave out candidates whose weights are not on this machine.
        top: How many candidates may be fine-tuned.
        out: Folder of the result; None takes the next free ``runs/<data>-rank-001``.
        resume: Go on in ``out``; what is scored there is not scored again.
        quiet: Show nothing.
        **options: Options of ``fit`` for opening and reading data: ``columns``, ``image_size``, ``device``, ``seed`` and others.

    Raises:
        OptionError: For unknown options, values out of range, or if no candidate is within the limits or can be scored.
        UnknownBackboneError: If a name or glob matches nothing, with the nearest names.
        DataError: If the data cannot be read by any candidate, or not divided into folds.
        InterruptedRunError: After Ctrl-C or SIGTERM.
    """
    refuse_second_run()
    check_kinds(out, resume=resume, quiet=quiet, offline=offline)
    limited: dict[str, Any] = {"max_params": max_params, "max_latency_ms": max_latency_ms, "max_memory": max_memory, "license": license}
    checks: dict[str, Any] = {"limits": limited, "budget": budget, "top": top, "more": [lambda: _config(task, options)]}
    candidates = checked_candidates(candidates, task, options, **checks)
    limits, config, seconds = Limits(**limited), _config(task, options), seconds_of(budget)
    with each_message_once():
        tables, found, left_out = open_ranked(data, valid, candidates, task=task, config=config)
    folder, network = claim_folder(out, _name_of(data), "rank", resume=resume), without_network() if offline else nullcontext()
    try:
        with ending_early(), each_message_once(), torch.inference_mode(False), torch.enable_grad(), network:
            config = sized_for(config, len(tables[0])).model_copy(update={"on_corrupt": "raise", "max_corrupt": None})  # both are opened
            _begin(folder, _record(config, limits, task, tables))
            metric = resolve_monitor(config.monitor, find_task(task))
            with _conditions(found, tables, task, config, limits, Progress(quiet, metric)) as conditions:
                given = {name: value for name, value in options.items() if value is not None}
                search = Search(found, tables, conditions, folder=folder, metric=metric, budget=seconds, top=top, options=given)
                search.left_out |= left_out
                with _resumable(folder, conditions.stop):
                    ranking = _written(search.scored())
                    tuned = search.tuned(ranking)
                    return ranking if tuned is ranking else _written(tuned)
    finally:
        release_folder(folder)


def _config(task: str, options: Mapping[str, Any]) -> Config:
    """Return the configuration of opening and reading data; other options are refused by ``checked_candidates``.

    Raises:
        OptionError: Naming all values out of range.
    """
    try:
        return resolve("linear-probe", {name: value for name, value in options.items() if value is not None and name in OPTIONS}, task=task)
    except OptionError as error:
        faults, _ = faults_of(error)
        raise OptionError(fault_message("a ranking cannot run with these:", faults)) from error


def _name_of(data: Any) -> str:
    return Path(data).absolute().name.partition(".")[0] if isinstance(data, str | os.PathLike) else "data"


@contextmanager
def _conditions(
    candidates: Sequence[Backbone], tables: Tables, task: str, config: Config, limits: Limits, progress: Progress
) -> Iterator[Conditions]:
    """Give what is the same for all candidates, while signals are caught and the progress is shown."""
    accelerator = make_accelerator(config.device, config.precision)
    with stop_signals() as stop, progress, _shared_pixels(candidates, tables, config) as pixels:
        yield Conditions(task, config, accelerator, progress, stop, limits, pixels)


@contextmanager
def _shared_pixels(candidates: Sequence[Backbone], tables: Tables, config: Config) -> Iterator[PixelStore | None]:
    """Give a store of the pixels that several candidates read, in a temporary folder; None where they read no images."""
    declared = [one.spec.inputs for one in candidates if isinstance(one.spec.inputs, Image)]
    if len(declared) < 2:
        yield None
        return
    changes: dict[str, Any] = {name: value for name, value in (("size", config.image_size), ("window", config.window)) if value is not None}
    files = [item for table in tables if table is not None and isinstance(table.inputs, list | tuple) for item in table.inputs]
    with tempfile.TemporaryDirectory(prefix="zoo-rank-") as folder:
        yield PixelStore(Path(folder), files, [replace(inputs, **changes) for inputs in declared])


def _record(config: Config, limits: Limits, task: str, tables: Tables) -> dict[str, Any]:
    data = {"train": content_summary(tables[0]), "valid": content_summary(tables[1])}
    plain: dict[str, Any] = json.loads(json.dumps({"task": task, "config": config.to_dict(), "limits": limits.to_dict(), "data": data}))
    return plain


def _begin(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of a ranking, or check that the one in the folder began with the same data and options.

    Raises:
        SavedModelError: Naming what differs.
    """
    path = folder / "run.json"
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))["rank"]
            differ = option_differences(record["config"], before["config"])
            if before["task"] != record["task"]:
                differ.append(f"task was {before['task']!r} and is {record['task']!r}")
            for part, summary in record["data"].items():
                then, now = before["data"][part] or {"samples": 0}, summary or {"samples": 0}
                keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
                differ += [f"{part} data: {key} was {then.get(key)} and is {now.get(key)}" for key in keys]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SavedModelError(f"{str(path)!r} is no record of a ranking ({error!r}); take another folder (out, --out)") from error
        if differ:
            remedy = "Give the same as before, or start anew (out, --out)"
            raise SavedModelError(fault_list(f"the ranking in {str(folder)!r} cannot go on:", differ, remedy))
    write_run(folder, {"rank": record})


@contextmanager
def _resumable(folder: Path, stop: Any) -> Iterator[None]:
    """Say how the ranking goes on after a signal."""
    try:
        yield
    except (Stopped, InterruptedRunError) as error:
        name = stop.name if stop.signum else "a signal"
        again = InterruptedRunError(f"stopped by {name}; what is scored is kept. {how_to_go_on(folder)}")
        again.exit_code = stop.exit_code if stop.signum else getattr(error, "exit_code", again.exit_code)
        raise again from error


def _written(ranking: Ranking) -> Ranking:
    """Write ``rank.json`` and ``rank.png``."""
    write_json(ranking.dir / "rank.json", ranking.to_dict())
    draw_ranking(ranking, ranking.dir / "rank.png")
    return ranking
