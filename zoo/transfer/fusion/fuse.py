"""Late fusion of an image backbone, a text backbone and numbers of one table."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.data.splits.leaks import check_leak
from zoo.declare import Image, Text
from zoo.errors import OptionError, count, did_you_mean, fault_list
from zoo.models.backbone import Backbone
from zoo.models.pairs.zero_shot import text_tower
from zoo.models.task_model import TaskModel
from zoo.transfer.fewshot.few_shot import found_backbone
from zoo.transfer.fusion.augmentation import augment_faults
from zoo.transfer.fusion.model import Fusion
from zoo.transfer.fusion.options import MERGED, pass_faults, training_faults
from zoo.transfer.fusion.parts import check_present, read_parts
from zoo.transfer.fusion.saved import OF_ONE_KIND
from zoo.transfer.fusion.solved import LIMIT, Block, HeadData, monitor_of
from zoo.transfer.fusion.towers import check_one_vector
from zoo.transfer.fusion.training import solve_fusion, train_fusion
from zoo.tuning.efficient.kinds import KINDS
from zoo.tuning.efficient.lora import fold_lora
from zoo.util.numbers import is_finite

TASKS = ("single-label", "multi-label")
READS: Mapping[str, type[Any]] = {"image": Image, "text": Text}


def fuse(
    train: Any,
    valid: Any = None,
    *,
    image: Backbone | TaskModel | str | None = None,
    text: Backbone | TaskModel | str | None = None,
    numbers: Sequence[str] = (),
    how: str = "concatenate",
    tune: str = "none",
    task: str = "single-label",
    columns: Mapping[str, str] | None = None,
    label_columns: Sequence[str] = (),
    uncertain: str | None = None,
    root: str | os.PathLike[str] | None = None,
    dropout: float = 0.2,
    seed: int = 0,
    training: Mapping[str, Any] | None = None,
    compare: bool = True,
    **options: Any,
) -> Fusion:
    """Fuse an image and a text backbone and numbers, of one table, to a classifier.

    Late fusion: features of whole inputs meet, by ``concatenate`` (one linear head on all features beside each other, which AutoGluon
    found best for pretrained backbones, Tang et al. 2024), ``gated`` (GMU, Arevalo et al. 2017) or ``cross_attention`` between the tokens
    of the parts (Lu et al. 2019). The backbones stay as they are unless ``tune`` says otherwise; a concatenation of frozen features is
    then solved, and everything else is trained by ``TaskModel.fit``.

    Each part is standardized, and a learned vector stands for a missing one. Modality dropout: a share of the rows is given without one of
    its parts (to the solved head once more, in training anew in each step), so that this vector is learned and no part alone is relied on.

    Args:
        train: A table with ``file_name``, ``text`` or both, ``label``, and the numbers; an empty cell is a missing part.
        valid: Another such table, on which the parts are compared and the epoch of a training is chosen; None holds some rows of ``train``
            out for that.
        image: The image backbone, its name, or a model, whose features are then used, LoRA merged; None for no images.
        text: Likewise of texts; of a dual encoder such as CLIP its text tower is taken.
        numbers: Columns of numbers.
        how: ``concatenate``, ``gated`` or ``cross_attention``.
        tune: What of the backbones trains too: ``none``, the last layer group of each (``top``), ``all``, or with ``concatenate`` a kind of
            parameters that can be merged into the weights, such as ``lora`` or ``bitfit``.
        task: ``single-label`` or ``multi-label``.
        columns: Own names of columns by role, such as ``{"file_name": "photo"}``.
        label_columns: Columns that hold the labels of a multi-label task, one per class, with 0 and 1.
        uncertain: What a label of -1 counts as there: ``mask``, ``positive`` or ``negative``; None refuses it.
        root: Folder of the images; None is that of the table.
        dropout: Share of the rows that are given without one part, in [0, 1].
        seed: Seed of everything random.
        training: Options of ``TaskModel.fit``, such as ``{"epochs": 30, "lr": 1e-3, "out": "runs/fused", "resume": True}``; without ``out``
            the run leaves no folder. ``augment`` is of the images alone; by default they are augmented where whole backbones train
            and held-out rows say that it helps.
        compare: Whether ``scores`` are computed: what each part alone gives, beside the fusion.
        **options: Of the passes through the backbones, as for ``TaskModel.embed``.

    Raises:
        OptionError: If there are not two parts, a backbone reads something else, or an option is out of range; all in one error.
        DataError: If a part is missing everywhere, a cell is no number, or an image does not exist.
    """
    given, training = {"image": image, "text": text}, training or {}
    found = {name: _tower(name, found_backbone(one)) for name, one in given.items() if one is not None}
    trained, chosen = how != "concatenate" or tune != "none", {"quiet": bool(options.get("quiet", False))} | dict(training)
    faults = [*training_faults(how, tune, training, task if task in TASKS else TASKS[0]), *augment_faults(found.get("image"), training)]
    faults += _update_faults(found, tune)
    lists = {"numbers": numbers, "label_columns": label_columns}
    faults += [f"{name} is {value!r}; give a list of columns" for name, value in lists.items() if isinstance(value, str)]
    if trained and (odd := [name for names in OF_ONE_KIND.values() for name in names if name in options]):
        remedy = "take how='concatenate' and tune='none', or a backbone or a model that has it, such as zoo.get(NAME, img_size=…)"
        faults.append(f"{', '.join(odd)}: for frozen features and a solved head only; {remedy}")
    _check(found, numbers, task, dropout, options, faults)
    reading: dict[str, Any] = {"columns": columns or {}, "root": root, "labelled": True, "task": task}
    labels: dict[str, Any] = {"label_columns": tuple(label_columns), "uncertain": uncertain}
    reading |= labels
    parts = read_parts(train, list(found), numbers, **reading)
    check_present(parts)
    classes = parts.labels.classes
    if len(classes) < 2:
        raise OptionError(f"the training data have {count(len(classes), 'class')}; give rows of two classes or more")
    held = None if valid is None else read_parts(valid, list(found), numbers, **reading, classes=classes)
    if held is not None:
        check_leak(parts.labels, held.labels, allow=True)
    models = {name: one.adapt(2) if isinstance(one, Backbone) else _merged(one) for name, one in found.items()}  # their heads are not used
    fusion = Fusion(models, tuple(numbers), task, classes, dict(columns or {}), root, options=options, how=how, trained=trained, **labels)
    if trained:
        check_one_vector(models)
    features = fusion.features(parts)
    fusion.blocks = {name: Block.of(*pair, limit=math.inf if name in models else LIMIT) for name, pair in features.items()}
    data = HeadData(task, parts.labels, np.arange(len(parts.labels)), seed)
    fusion.monitor = monitor_of(data)
    if trained:
        train_fusion(fusion, parts, features, data, held, tune=tune, dropout=dropout, training=chosen, compare=compare)
    else:
        solve_fusion(fusion, features, data, held, dropout=dropout, compare=compare)
    return fusion


def _tower(kind: str, one: Backbone | TaskModel) -> Backbone | TaskModel:
    """Return the text tower where a dual encoder is given for the texts, else what is given."""
    is_pair = kind == "text" and isinstance(one, Backbone) and one.spec.pair is not None
    return text_tower(one, "text=") if is_pair else one  # type: ignore[arg-type]  # a backbone, checked above


def _merged(model: TaskModel) -> TaskModel:
    """Return a model as it is, or a copy with LoRA or another update of its weights merged into them; others stay beside them."""
    if model.lora is None or not KINDS[model.lora.kind].merges:
        return model
    copied = copy.deepcopy(model)
    fold_lora(copied)
    return copied


def _update_faults(found: Mapping[str, Backbone | TaskModel], tune: str) -> list[str]:
    """Return a fault for each model with something beside its weights where an update of the weights is to train."""
    updates = {name: one.lora.kind for name, one in found.items() if isinstance(one, TaskModel) and one.lora is not None}
    return [
        f"{name} has {KINDS[kind].title}, beside which tune={tune!r} cannot train; take tune='none', tune='top' or tune='all'"
        for name, kind in updates.items()
        if not KINDS[kind].merges and tune in MERGED
    ]


def _check(
    found: Mapping[str, Backbone | TaskModel],
    numbers: Sequence[str],
    task: str,
    dropout: float,
    options: Mapping[str, Any],
    faults: list[str],
) -> None:
    if not found:
        faults.append("there is no image= and no text=; numbers alone need no backbone")
    elif len(found) + len(numbers) < 2:
        faults.append("there is one part only; give two of image=, text= and numbers=, or adapt() the backbone alone")
    faults += pass_faults({name: value for name, value in options.items() if name != "on_error"})
    for name, one in found.items():
        if not isinstance(one.spec.inputs, READS[name]):
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
