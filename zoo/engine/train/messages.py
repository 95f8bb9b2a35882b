"""Messages of a run: its first line, and what is added to errors that end it."""

from __future__ import annotations

import re
from pathlib import Path

from zoo.data.texts.encode import number_of_samples
from zoo.engine.loading.sources import corrupt_files
from zoo.engine.objective.objective import Objective
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.runtime.scratch import KEEP_NOTHING, is_scratch
from zoo.errors import OwnPartError

SKIPPED = "on_corrupt='skip' (--set on_corrupt=skip) leaves out a few such samples, and zoo data check lists them all"


def headline(objective: Objective, context: RunContext, resumed_at: str) -> str:
    """Return the first line of a run: model, licence of its weights, recipe, numbers of samples, device, and the folder if it stays."""
    model, accelerator, processes = objective.model, context.accelerator, context.ranks.count
    backbone = f"{model.spec.name} (licence of the weights: {model.spec.license})" if model.pretrained else model.spec.name
    data = number_of_samples([source.table for source in objective.sources.values()], "training samples")
    data += f", {number_of_samples(objective.valid.values(), 'for validation')}" if sum(map(len, objective.valid.values())) else ""
    precision = "" if accelerator.mixed_precision == "no" else f", {accelerator.mixed_precision}"
    went_on = f"; going on at {resumed_at}" if resumed_at else ""
    where = str(accelerator.device) if processes == 1 else f"{processes} processes on {accelerator.device.type}"
    into = "" if is_scratch(context.folder) else f", into {context.folder}"
    return f"{backbone}, {context.config.recipe.name}: {data}, {where}{precision}{into}{went_on}"


def failed_epoch(number: int, epochs: int, folder: Path) -> str:
    """Return the epoch that a part of the user's failed in, counted from 1, and how the run goes on."""
    if is_scratch(folder):
        return f"epoch {number} of {epochs}. {KEEP_NOTHING}"
    out = str(folder)
    return f"epoch {number} of {epochs}. The run is kept: correct it, and go on with resume=True (--resume) and out={out!r}"


def name_whole(error: OwnPartError, folder: Path) -> None:
    """Name the folder of a larger work in the error of a run inside it, in place, as it is the work that goes on."""
    inner = re.escape(repr(f"{folder}/")[:-1])
    error.args = tuple(re.sub(rf"{inner}[^']*'", lambda _: repr(str(folder)), str(part)) for part in error.args)


def corrupt_inputs(objective: Objective, context: RunContext) -> str:
    """Return how many files of the run cannot be read, where that is soon known, and the remedy."""
    both = [*(source.table for source in objective.sources.values()), *objective.valid.values()]
    tables = list({id(table.inputs): table for table in both}.values())  # unlabelled data are often validated too
    found = corrupt_files(objective.model, tables, context.config) if context.ranks.count == 1 else ""
    return f"{found}; {SKIPPED}" if found else SKIPPED
