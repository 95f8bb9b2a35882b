"""The values of a chosen run, taken over by the model that the runs began from."""

from __future__ import annotations

from pathlib import Path

from zoo.data.table import Table
from zoo.engine.loading.sources import inputs_in_use
from zoo.engine.options.config import Config
from zoo.models.task_model import TaskModel
from zoo.saved.load import load_into


def take_values(model: TaskModel, folder: Path, table: Table, config: Config) -> None:
    """Give a model the values and thresholds of a finished run, and the inputs and class names of its data, in place.

    Args:
        model: The model.
        folder: Folder of the run.
        table: The checked training data.
        config: The configuration of the run.
    """
    load_into(model, folder)
    model.inputs, model.labels = inputs_in_use(model, config, table), model.labels or table.classes or None
