"""The record of a run in its folder, run.json, and whether a run can go on with it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch

from zoo.data.splits.patients import OFF
from zoo.data.table import Table
from zoo.engine.loading.sources import summary
from zoo.engine.options.begun import objective_as_begun, option_differences
from zoo.engine.rundir.checkpoint import Checkpoint, read_newest
from zoo.engine.rundir.run_folder import FINISHED, environment
from zoo.engine.train.job import Job, Tables
from zoo.errors import SavedModelError, count, fault_list
from zoo.util.differences import record_differences

log = logging.getLogger("zoo")


def record_of(job: Job, tables: Tables, accelerator: Any) -> dict[str, Any]:
    """Return the content of run.json: configuration, model, data and versions."""
    model, config = job.model, job.config
    described = {
        "backbone": model.spec.name,
        "task": model.task,
        "num_classes": model.num_classes,
        "head": model.head_name,
        "layer_groups": list(model.groups.names),
        "frozen": model.frozen,
    }
    record = {
        "config": config.to_dict(),
        "model": described,
        "data": data_record(tables),
        "device": str(accelerator.device),
        "precision": "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision,
        "threads": torch.get_num_threads(),
        "versions": environment(model.plugin.partition(" ")[0]),
    }
    if job.objective is not None:
        # The checkpoint has its name and sources.
        record["objective"] = describe() if (describe := getattr(job.objective, "describe", None)) else True
    if own := job.own.describe():
        record["own"] = own
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def data_record(tables: Tables) -> dict[str, Any]:
    """Return the summaries of the data of a run, with the number of groups that its division keeps whole."""
    return {name: _with_groups(table) for name, table in zip(("train", "valid"), tables, strict=True)}


def _with_groups(table: Table | None) -> dict[str, Any] | None:
    found = summary(table)
    return found if found is None or table is None or table.groups is None else found | {"groups": len(set(table.groups))}


def recorded_options(folder: Path) -> dict[str, Any] | None:
    """Return the configuration in the record of a run; None where there is none, or one that ``checkpoint_to_resume`` refuses."""
    try:
        config = json.loads((folder / "run.json").read_text(encoding="utf-8"))["config"]
        return config if config["recipe"]["name"] and config["recipe"]["phases"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def checkpoint_to_resume(folder: Path, record: dict[str, Any]) -> Checkpoint | None:
    """Return the checkpoint to resume from, None for a new run.

    Raises:
        SavedModelError: If the run in the folder has another configuration, model or data; all differences are named.
    """
    path = folder / "run.json"
    if not path.is_file():
        return None
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        faults = option_differences(effective(record), effective(before)) + option_differences(record["model"], before["model"])
        faults += _objective_differences(before.get("objective"), record.get("objective"))
        faults += record_differences("own", before.get("own") or {}, record.get("own") or {})
        faults += [data_difference(name, record["data"][name], before["data"][name]) for name in ("train", "valid")]
    except (ValueError, KeyError, TypeError) as error:
        raise SavedModelError(f"{str(path)!r} cannot be read ({error}); start anew in another folder (out, --out)") from error
    faults = [fault for fault in faults if fault]
    if faults:
        raise SavedModelError(
            fault_list(f"the run in {str(folder)!r} cannot go on:", faults, "Give the same as before, or start anew (out, --out)")
        )
    newest = read_newest(folder / "checkpoint")
    if newest is None and FINISHED in before:
        return None
    if newest is None:
        log.warning("the run in %r was stopped before its first checkpoint: it starts anew", str(folder))
        return None
    return newest[0]


def _objective_differences(before: Any, now: Any) -> list[str]:
    """Return how the objectives of two records differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict) and before["name"] == now["name"]:
        return record_differences(f"the objective {now['name']}", objective_as_begun(before), now)
    began, resumed = (
        f"the objective {one['name']}" if isinstance(one, dict) else "objective=" if one else "no objective=" for one in (before, now)
    )
    return [] if before == now else [f"the run was started with {began} and is resumed with {resumed}"]


def effective(record: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with the precision in use, which "auto" leaves to the device."""
    return {**record["config"], "precision": record["precision"]}


def data_difference(name: str, ours: dict[str, Any] | None, theirs: dict[str, Any] | None) -> str:
    """Return how the summaries of a run's data differ, in words; empty if they do not."""
    if ours is None or theirs is None:
        return "" if ours == theirs else f"the {name} data {'are missing' if ours is None else 'are new'}"
    if list(ours["classes"]) != list(theirs["classes"]):
        return f"the classes of the {name} data were {', '.join(theirs['classes'])} and are {', '.join(ours['classes'])}"
    hint = ""
    if name == "train" and ours.get("groups") and not theirs.get("groups"):  # versions before did not read the headers of DICOM files
        hint = f"; {count(ours['groups'], 'group')} stay on one side of the division now: if the files are the same, "
        hint += f"columns={{'group': '{OFF}'}} divides them as before"
    if ours["samples"] != theirs["samples"]:
        return f"the {name} data had {theirs['samples']} samples and have {ours['samples']}{hint}"
    return "" if ours["sha256"] == theirs["sha256"] else f"the {name} data have other files or labels than before{hint}"
