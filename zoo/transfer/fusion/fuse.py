"""Late fusion: frozen features of an image and a text backbone and numbers beside each other, with one linear head on all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.declare import Image, Text
from zoo.errors import OptionError, count, did_you_mean, fault_list
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.transfer.fewshot.few_shot import found_backbone
from zoo.transfer.fusion.model import Fusion
from zoo.transfer.fusion.parts import check_present, read_parts
from zoo.transfer.fusion.solved import Block, joined, solve_head, with_dropped
from zoo.util.numbers import is_finite

TASKS = ("single-label", "multi-label")
KINDS: Mapping[str, type[Any]] = {"image": Image, "text": Text}


def fuse(
    train: Any,
    *,
    image: Backbone | TaskModel | str | None = None,
    text: Backbone | TaskModel | str | None = None,
    numbers: Sequence[str] = (),
    task: str = "single-label",
    columns: Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    dropout: float = 0.2,
    seed: int = 0,
    **options: Any,
) -> Fusion:
    """Fit one linear head on the frozen features of an image and a text backbone and on numbers, of one table.

    Late fusion by concatenation, which AutoGluon found best for pretrained backbones (Tang et al. 2024). Each part is standardized. Where
    one is missing its features are zero and a learned vector is added to the logits. Modality dropout: a share of the rows is given
    once more without one of its parts, so that the head learns this vector, and relies on no part alone.

    Args:
        train: A table with ``file_name``, ``text`` or both, ``label``, and the numbers; an empty cell is a missing part.
        image: The image backbone, its name, or a model, whose features are then used; None for no images.
        text: Likewise of texts.
        numbers: Columns of numbers.
        task: ``single-label`` or ``multi-label``.
        columns: Own names of columns by role, such as ``{"file_name": "photo"}``.
        root: Folder of the images; None is that of the table.
        dropout: Share of the rows that are given once more without one part, in [0, 1].
        seed: Seed of the folds and of the dropout.
        **options: Of the passes through the backbones, as for ``TaskModel.embed``.

    Raises:
        OptionError: If there are not two parts, a backbone reads something else, or an option is out of range; all in one error.
        DataError: If a part is missing everywhere, a cell is no number, or an image does not exist.
    """
    given = {"image": image, "text": text}
    found = {name: found_backbone(one) for name, one in given.items() if one is not None}
    _check(found, numbers, task, dropout, options)
    reading: dict[str, Any] = {"columns": columns or {}, "root": root, "labelled": True, "task": task}
    parts = read_parts(train, list(found), numbers, **reading)
    check_present(parts)
    classes = parts.labels.classes
    if len(classes) < 2:
        raise OptionError(f"the training data have {count(len(classes), 'class')}; give rows of two classes or more")
    models = {name: one.adapt(2) if isinstance(one, Backbone) else one for name, one in found.items()}  # their heads are not used
    fusion = Fusion(models, tuple(numbers), task, classes, dict(columns or {}), root, options=options)
    features = fusion.features(parts)
    fusion.blocks = {name: Block.of(*pair) for name, pair in features.items()}
    kept, features = with_dropped(features, dropout, seed)
    fusion.weight, fusion.bias = solve_head(joined(features, fusion.blocks), parts.labels, task, kept, seed)
    return fusion


def _check(
    found: Mapping[str, Backbone | TaskModel], numbers: Sequence[str], task: str, dropout: float, options: Mapping[str, Any]
) -> None:
    faults = []
    if isinstance(numbers, str):
        faults.append(f"numbers is {numbers!r}; give a list of columns")
    if not found:
        faults.append("there is no image= and no text=; numbers alone need no backbone")
    elif len(found) + len(numbers) < 2:
        faults.append("there is one part only; give two of image=, text= and numbers=, or adapt() the backbone alone")
    for name, one in found.items():
        if not isinstance(one.spec.inputs, KINDS[name]):
            faults.append(f"{name} is {one.spec.name!r}, which reads {one.spec.modality}s; give a backbone of {name}s")
    if task not in TASKS:
        faults.append(f"task {task!r}{did_you_mean(str(task), TASKS)} is none of: {', '.join(TASKS)}")
    if doubled := sorted({name for name in numbers if [*numbers].count(name) > 1}):
        faults.append(f"numbers names {', '.join(map(repr, doubled))} twice")
    if "on_error" in options:
        faults.append("on_error: a row whose image cannot be read is not skipped here; empty its cell, so that the image counts as missing")
    if not (is_finite(dropout) and 0 <= dropout <= 1):
        faults.append(f"dropout is {dropout!r}; it is a share of the rows, in [0, 1]")
    if faults:
        raise OptionError(fault_list("fuse() cannot work with these arguments:", faults))
