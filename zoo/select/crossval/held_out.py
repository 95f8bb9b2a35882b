"""Outputs of the model of a fold for its held-out samples, and their file in the fold's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.data.nondeterminism import is_nondeterministic
from zoo.data.table import Table
from zoo.data.texts.token_ids import fit_lengths
from zoo.engine.cache.phase_data import PhaseData
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.inference.evaluate import evaluate
from zoo.engine.options.epochs import Epoch, reads_pooled, shortest_frozen_prefix
from zoo.engine.options.recipe import UPDATES, Phase
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.runtime.device import make_accelerator, placed
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.signals import StopFlag
from zoo.engine.train.job import Job
from zoo.engine.train.messages import SKIPPED
from zoo.errors import SavedModelError
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.util.atomic_write import room_for

FILE = "held_out.npz"
Array = npt.NDArray[Any]


def held_out_outputs(model: TaskModel, job: Job, table: Table, folder: Path) -> Array:
    """Return the outputs of a fitted model for held-out samples, a row per sample; for words an array of arrays.

    Where the whole backbone stays frozen they are computed from its stored features, of which the run has those of all folds.

    Args:
        model: The model, with the values of the fold.
        job: The job of the fold.
        table: The held-out samples.
        folder: The folder of the fold.
    """
    if _stays_frozen(model, job) and not is_nondeterministic(table):
        return _from_features(model, job, table, folder)
    config = job.config
    where: dict[str, Any] = {"device": config.device, "precision": config.precision, "workers": config.workers}
    return evaluate(model, table, **where, remedy=SKIPPED).outputs


def _stays_frozen(model: TaskModel, job: Job) -> bool:
    everything = shortest_frozen_prefix(job.config, model.groups, model.frozen) == len(model.groups)
    pooled = reads_pooled(model.head) and not find_task(model.task).per_token and job.own.augment is None
    return everything and pooled and job.config.cache and not job.config.shard and job.config.trains not in UPDATES


def _from_features(model: TaskModel, job: Job, table: Table, folder: Path) -> Array:
    accelerator, frozen = make_accelerator(job.config.device, job.config.precision), model.frozen
    everything = len(model.groups)
    last = Epoch(Phase(name="held out", frozen="all"), 0, everything, 0, 1, 1, 0, 1, augment=False, cached=True, pooled=True)
    with placed(model, accelerator.device) as layout:
        model.freeze(everything)
        model.eval()
        progress = Progress(quiet=True, monitor="")
        context = RunContext(job.config, accelerator, Ranks(), folder, layout, progress, StopFlag(), job.own)
        data = PhaseData(model, {}, {"held out": fit_lengths(table, model.inputs, quiet=True)}, context)
        try:
            return data.infer(last, "held out")
        finally:
            data.loaders.close()
            model.freeze(frozen)


def write_outputs(folder: Path, outputs: Array, rows: Array, targets: Array, groups: Sequence[str] | None = None) -> None:
    """Write outputs with the rows, the targets and the groups of their samples; arrays of words as one array with their numbers."""
    content = {"rows": rows} | _flat("outputs", outputs) | _flat("targets", targets)
    content |= {} if groups is None else {"groups": np.asarray(groups, dtype=np.str_)}
    stage = folder / f".{FILE}.part"
    with room_for(folder, sum(values.nbytes for values in content.values())):
        with stage.open("wb") as stream:
            np.savez(stream, **content)  # type: ignore[arg-type]  # its types take no mapping
        stage.replace(folder / FILE)


class HeldOut(NamedTuple):
    """The held-out samples of a fold.

    Attributes:
        rows: Their rows in the data.
        outputs: The outputs for them.
        targets: Their targets.
        groups: Their groups, or None.
    """

    rows: Array
    outputs: Array
    targets: Array
    groups: Array | None = None


def read_outputs(folder: Path) -> HeldOut | None:
    """Return what ``write_outputs`` wrote; None if there is nothing.

    Raises:
        SavedModelError: If it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as content:
            return HeldOut(content["rows"], _nested("outputs", content), _nested("targets", content), content.get("groups"))
    except Exception as error:  # of a damaged archive: any
        raise SavedModelError(f"{str(path)!r} cannot be read ({error}); remove it, and go on with resume=True (--resume)") from error


def _flat(name: str, values: Array) -> dict[str, Array]:
    if values.dtype != object:
        return {name: values}
    return {name: np.concatenate(list(values)), f"{name}_lengths": np.array([len(each) for each in values], dtype=np.int64)}


def _nested(name: str, content: Mapping[str, Array]) -> Array:
    if f"{name}_lengths" not in content:
        return np.asarray(content[name])
    parts = np.split(content[name], np.cumsum(content[f"{name}_lengths"])[:-1])
    found = np.empty(len(parts), dtype=object)
    for place, part in enumerate(parts):
        found[place] = part
    return found
