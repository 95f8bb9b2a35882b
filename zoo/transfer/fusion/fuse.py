"""Late fusion: frozen features of an image and a text backbone and numbers beside each other, with one linear head on all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.data.folds import folds_of
from zoo.data.table import Table
from zoo.declare import Image, Text
from zoo.engine.inference.predict import embed
from zoo.engine.solved.fitted_layers import Rows
from zoo.engine.solved.head_solver import WITHOUT_FOLDS, solve
from zoo.errors import OptionError, SavedModelError, count, did_you_mean, fault_list
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.saved.load import load
from zoo.saved.save import check_free, writing
from zoo.tasks.find import find_task
from zoo.transfer.fewshot.few_shot import found_backbone
from zoo.transfer.fusion.parts import Parts, check_present, read_parts
from zoo.util.atomic_write import write_json
from zoo.util.numbers import is_finite
from zoo.weights.load import read, write

TASKS = ("single-label", "multi-label")
RECORD, VALUES = "fusion.json", "fusion.safetensors"
FORMAT = 1  # of the record of a saved fusion
OF_ONE_KIND = {"image": ("image_size", "window"), "text": ("prompt_name", "overflow")}  # options that change its features
KINDS: Mapping[str, type[Any]] = {"image": Image, "text": Text}
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Block:
    """One part of the features: standardized, zero where it is missing.

    Attributes:
        mean: ``(dim,)``, of the training rows that have it.
        scale: Divisor: a number per column of numbers; of features one for all, which makes their summed variance 1.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: Tensor, missing: Tensor) -> Block:
        """Return the block of training features ``(rows, dim)``, measured on the rows that have the part."""
        there = features[~missing].double()
        deviation = (there - there.mean(0)).square().mean(0).sum().sqrt()
        return cls(there.mean(0).float(), deviation.clamp(min=1e-12).float())

    def __call__(self, features: Tensor, missing: Tensor) -> Tensor:
        """Return the standardized features ``(rows, dim)``."""
        return ((features - self.mean) / self.scale).masked_fill(missing[:, None], 0.0)


@dataclass
class Fusion:
    """A classifier of rows that have images, texts and numbers, any of which may be missing.

    Attributes:
        models: The image and the text model, whose features are used as they are.
        numbers: Columns of numbers.
        task: Name of the task.
        classes: Names of the classes.
        columns: Own names of columns by role.
        root: Folder of the images; None is that of each table.
        blocks: How each part is standardized, by its name.
        weight: Of the head, ``(classes, features + parts)``; the last columns are the learned vectors of missing parts.
        bias: ``(classes,)``.
        options: Of the pass, as for ``TaskModel.embed``.
    """

    models: Mapping[str, TaskModel]
    numbers: tuple[str, ...]
    task: str
    classes: tuple[str, ...]
    columns: Mapping[str, str]
    root: str | os.PathLike[str] | None = None
    blocks: Mapping[str, Block] = field(default_factory=dict)
    weight: Tensor = field(default_factory=lambda: torch.zeros(0))
    bias: Tensor = field(default_factory=lambda: torch.zeros(0))
    options: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, data: Any) -> list[Any]:
        """Return the label of each row of a table; for a multi-label task a tuple of labels."""
        return find_task(self.task).decode(self._outputs(self._read(data, labelled=False)), self.classes)

    def predict_proba(self, data: Any) -> Array:
        """Return probabilities ``(rows, classes)``, float32."""
        found = find_task(self.task).probabilities(self._outputs(self._read(data, labelled=False)))
        return np.asarray(found, dtype=np.float32)

    def evaluate(self, data: Any) -> dict[str, float]:
        """Return the metrics of the task on a labelled table."""
        parts = self._read(data, labelled=True)
        return find_task(self.task).metrics(self._outputs(parts).astype(np.float64), np.asarray(parts.labels.targets), self.classes)

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Save the models in folders below it, and the head beside them; ``zoo.transfer.load_fusion`` opens it.

        Raises:
            OutputExistsError: If the folder exists and is not empty, unless ``overwrite``.
        """
        path = Path(folder)
        check_free(path, overwrite=overwrite)
        for name, model in self.models.items():
            model.save(path / name, overwrite=overwrite)
        tensors = {"weight": self.weight, "bias": self.bias}
        tensors |= {f"{name}.{key}": getattr(block, key) for name, block in self.blocks.items() for key in ("mean", "scale")}
        fields = {"numbers": list(self.numbers), "task": self.task, "classes": list(self.classes), "columns": dict(self.columns)}
        lasting = {name: self.options[name] for names in OF_ONE_KIND.values() for name in names if name in self.options}
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            write(tensors, path / VALUES)
            write_json(path / RECORD, {"format": FORMAT, "models": list(self.models), "options": lasting} | fields)
        return path

    def _read(self, data: Any, *, labelled: bool) -> Parts:
        given: dict[str, Any] = {"columns": self.columns, "root": self.root, "labelled": labelled, "task": self.task}
        return read_parts(data, list(self.models), self.numbers, **given, classes=self.classes)

    def _features(self, parts: Parts) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the features of each part, zero where it is missing, and the rows in which it is."""
        found = {}
        for name, model in self.models.items():
            missing = parts.missing[name]
            there = [one for one, gone in zip(parts.inputs[name], missing, strict=True) if not gone]
            rows = np.zeros((len(missing), model.spec.features.dim), dtype=np.float32)
            if there:
                rows[~missing] = embed(model, there, **({"quiet": True} | self._options_of(name)))
            found[name] = (torch.from_numpy(rows), torch.from_numpy(missing))
        for place, name in enumerate(self.numbers):
            values = np.nan_to_num(parts.numbers[:, place : place + 1]).astype(np.float32)
            found[f"number {name}"] = (torch.from_numpy(values), torch.from_numpy(parts.missing[f"number {name}"]))
        return found

    def _options_of(self, kind: str) -> dict[str, Any]:
        """Return the options of the pass through one of the backbones, without those of another kind of input."""
        others = {name for other, names in OF_ONE_KIND.items() if other != kind for name in names}
        return {name: value for name, value in self.options.items() if name not in others}

    def _joined(self, features: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Return all parts beside each other, and a column per part that is 1 where it is missing."""
        rows = [self.blocks[name](values, missing) for name, (values, missing) in features.items()]
        return torch.cat([*rows, *(missing[:, None].float() for _, missing in features.values())], 1)

    def _outputs(self, parts: Parts) -> Array:
        return np.asarray((self._joined(self._features(parts)) @ self.weight.T + self.bias).numpy(), dtype=np.float32)


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
    features = fusion._features(parts)
    fusion.blocks = {name: Block.of(*pair) for name, pair in features.items()}
    kept, features = _with_dropped(features, dropout, seed)
    _solve_head(fusion, fusion._joined(features), parts.labels, kept, seed)
    return fusion


def _solve_head(fusion: Fusion, rows: Tensor, labels: Table, kept: Array, seed: int) -> None:
    """Give a fusion the optimum of its head; copies of a row are on one side of each fold."""
    task, targets = find_task(fusion.task), torch.as_tensor(np.asarray(labels.targets)[kept])
    groups = tuple(str(row) if labels.groups is None else labels.groups[row] for row in kept)
    table = Table([*range(len(kept))], targets.numpy(), fusion.classes, groups=groups)
    folds = folds_of(table, seed)

    def loss(logits: Tensor, chosen: Rows) -> Tensor:
        return task.loss(logits, targets[torch.from_numpy(chosen)])

    found = solve(rows, len(fusion.classes), loss, folds, device=torch.device("cpu"), penalty=None if folds else WITHOUT_FOLDS)
    assert found.bias is not None, "the layer has a bias"
    fusion.weight, fusion.bias = found.weight, found.bias


def _with_dropped(features: Mapping[str, tuple[Tensor, Tensor]], share: float, seed: int) -> tuple[Array, dict[str, tuple[Tensor, Tensor]]]:
    """Return the rows, a share of them once more without one of the parts that they have, and the number of each row."""
    gone, random = torch.stack([missing for _, missing in features.values()]).numpy(), np.random.default_rng(seed)
    count_of_rows = gone.shape[1]
    usable = np.flatnonzero((~gone).sum(0) > 1)
    chosen = random.permutation(usable)[: round(share * len(usable))]
    dropped = np.array([random.choice(np.flatnonzero(~gone[:, row])) for row in chosen], dtype=np.int64)
    kept = np.concatenate([np.arange(count_of_rows), chosen])
    found = {}
    for place, (name, (values, missing)) in enumerate(features.items()):
        more = missing[torch.from_numpy(kept)].clone()
        more[count_of_rows:] |= torch.from_numpy(dropped == place)
        found[name] = (values[torch.from_numpy(kept)], more)
    return kept, found


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


def load_fusion(folder: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> Fusion:
    """Open a saved fusion.

    Args:
        folder: The folder.
        root: Folder of the images of the tables to come; None is that of each table.

    Raises:
        SavedModelError: If the folder holds none, or it is damaged.
    """
    path = Path(folder)
    if not (path / RECORD).is_file():
        raise SavedModelError(f"{str(path)!r} is no saved fusion: it has no {RECORD}; give the folder that Fusion.save wrote")
    try:
        told = json.loads((path / RECORD).read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise SavedModelError(f"{str(path)!r} is of format {told['format']!r}, and this zoo reads {FORMAT}; update it")
        tensors = read(path / VALUES)
        models = {name: load(path / name) for name in told["models"] if name in KINDS}
        names = [*models, *(f"number {name}" for name in told["numbers"])]
        blocks = {name: Block(tensors[f"{name}.mean"], tensors[f"{name}.scale"]) for name in names}
        shared = {"task": told["task"], "classes": tuple(told["classes"]), "columns": told["columns"], "root": root}
        shared |= {"options": dict(told["options"])}
        return Fusion(models, tuple(told["numbers"]), **shared, blocks=blocks, weight=tensors["weight"], bias=tensors["bias"])
    except (KeyError, TypeError, ValueError) as error:
        raise SavedModelError(f"{str(path / RECORD)!r} is damaged ({type(error).__name__}: {error}); save the fusion again") from error
