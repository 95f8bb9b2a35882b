"""Data opened as a model reads them, for a pass that predicts, embeds, measures or calibrates."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from zoo.data.images.bands import PICTURE_CHANNELS
from zoo.data.open import open_data
from zoo.data.table import Table
from zoo.declare import Text
from zoo.engine.inference.inference_options import InferenceOptions, inputs_in_use, prompted
from zoo.engine.loading.sources import channels_of, check_targets, reads
from zoo.models.task_model import TaskModel

log = logging.getLogger("zoo")
_NONE: Mapping[str, str] = MappingProxyType({})


def open_labelled(model: TaskModel, data: Any, options: InferenceOptions, *, split: str | None, verb: str, **opening: Any) -> Table:
    """Return labelled data as a table with the classes of a model; errors of inputs propose to skip them.

    Args:
        model: The model.
        data: Any source with labels, see ``zoo.data.open.open_data``.
        options: The options of the pass.
        split: Only this split of the data; None for all.
        verb: What all samples do, such as ``are measured``, for the warning of training samples among others.
        **opening: Further options of ``open_data``.

    Raises:
        DataError: If the data have no labels, or labels outside the model's.
        OptionError: If an option is not for such inputs.
    """
    opening |= {"task": model.task, "classes": model.labels, "reads": reads(model), "channels": channels_of(model)}
    with options.naming_skip(opening=True):
        table = open_data(data, labelled=True, split=split, keep_unreadable=options.skip, **opening)
    check_targets(model, table)
    _log_splits(table, split, verb)
    inputs_in_use(model, table, options)
    return table


def _log_splits(table: Table, split: str | None, verb: str) -> None:
    """Warn where samples of a training split are measured with others, which flatters the metrics.

    Args:
        table: The rows.
        split: The split that was asked for; None for all.
        verb: What all samples do, such as ``are measured``.
    """
    found = Counter(table.splits or ())
    if split is None and "train" in found and len(found) > 1:
        some = ", ".join(f"{name} ({number})" for name, number in found.items())
        line = "%s: all %d samples %s, those of the training split too: %s; split='val' (--split) takes one"
        log.warning(line.replace("'val'", repr(next(name for name in found if name != "train"))), table.source, len(table), verb, some)


def open_inputs(
    model: TaskModel,
    inputs: Any,
    options: InferenceOptions,
    *,
    split: str | None = None,
    columns: Mapping[str, str] = _NONE,
    root: str | os.PathLike[str] | None = None,
) -> Table:
    """Return the inputs of a prediction as a table; errors of inputs propose to skip them.

    Args:
        model: The model.
        inputs: As for ``zoo.engine.inference.predict.predict_proba``.
        options: The options of the pass.
        split: Only this split of the data; None for all.
        columns: Own names of the columns of a table.
        root: Folder of the files that a table names.

    Raises:
        DataError: If there are none, or files do not exist, unless they are skipped.
        OptionError: If an option is not for such inputs.
    """
    channels = channels_of(model)
    source = inputs if isinstance(model.inputs, Text) else _as_list(inputs, model.spec.modality, channels)
    opening: dict[str, Any] = {"task": model.task, "split": split, "columns": columns, "root": root, "channels": channels}
    opening |= {"reads": reads(model), "keep_unreadable": options.skip, "default_split": "test"}
    with options.naming_skip(opening=True):
        table = open_data(source, labelled=False, **opening)
    inputs_in_use(model, table, options)
    prompted(model, table, options.prompt_name)
    return table


def _as_list(inputs: Any, kind: str, channels: int) -> Any:
    """Return one image or volume as a list of one."""
    if kind == "volume":
        return [inputs] if getattr(inputs, "ndim", 0) == 3 else inputs
    if type(inputs).__module__.startswith("PIL."):
        return [inputs]
    # A model of bands takes no grey images, of which an array of three axes could be a stack.
    single = getattr(inputs, "ndim", 0) == 2 or (
        getattr(inputs, "ndim", 0) == 3
        and (hasattr(inputs, "numpy") or channels not in PICTURE_CHANNELS or inputs.shape[-1] in (1, 3, 4, channels))
    )
    if not single and getattr(inputs, "ndim", 0) == 3 and len(inputs) == channels == 3:
        line = "an array of shape %s is read as 3 grey images; one image whose channels come first is given as X.transpose(1, 2, 0)"
        log.warning(line, tuple(inputs.shape))
    return [inputs] if single and not hasattr(inputs, "columns") else inputs
