"""The teacher of a distillation: a model, or a file of outputs; and its outputs as rows of numbers."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.distributed.rank_consistency import fingerprint
from zoo.errors import DataError, OptionError
from zoo.models.backbone import Backbone
from zoo.models.find import get
from zoo.models.pooling import Pool
from zoo.models.task_model import TaskModel
from zoo.saved.load import load
from zoo.tasks.task import Task
from zoo.transfer.distillation.feature_maps import feature_map, mask_of, on_grid
from zoo.transfer.distillation.output_file import SUFFIXES, OutputFile, read_outputs
from zoo.tuning.taps import taps
from zoo.util.atomic_write import is_file
from zoo.util.file_digest import file_digest

_WITHOUT_HEAD = 2  # outputs of a head that nothing reads


def open_teacher(teacher: Any, task: Task) -> TaskModel | OutputFile:
    """Return the teacher that ``Distill(teacher=…)`` names.

    Args:
        teacher: A ``TaskModel``, a ``Backbone``, the folder of a saved model, the name of a backbone, or a file of outputs.
        task: The task of the student.

    Raises:
        OptionError: If it is none of these.
        DataError: If a file of outputs does not exist or cannot be read.
    """
    if isinstance(teacher, TaskModel):
        return teacher
    if isinstance(teacher, Backbone):
        return teacher.adapt(_WITHOUT_HEAD)
    if not isinstance(teacher, str | os.PathLike):
        raise OptionError(
            f"teacher is {type(teacher).__name__}; give a TaskModel, a Backbone, the folder of a saved model, the name of a backbone, "
            f"or a file of outputs ({', '.join(SUFFIXES)})"
        )
    path = Path(teacher)
    if path.suffix.lower() in SUFFIXES and is_file(path):
        return read_outputs(path, task)
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        how = "numpy.savez(path, logits=…)" if path.suffix.lower() == ".npz" else f"zoo predict MODEL DATA --out {shlex.quote(str(path))}"
        raise DataError(f"teacher: the file {str(path)!r} does not exist; write it with: {how}")
    if any(is_file(path / name) for name in ("config.json", "ensemble.json", "adapter_config.json", "zoo.json")):
        return load(path)
    return get(os.fspath(teacher)).adapt(_WITHOUT_HEAD)


def describe_teacher(teacher: Any) -> Any:
    """Return a teacher as plain data that change with its values, for the record of a run."""
    if isinstance(teacher, TaskModel):
        return {"backbone": teacher.spec.name, "values": fingerprint(teacher)}
    if isinstance(teacher, Backbone):
        return {"backbone": teacher.spec.name}
    if not isinstance(teacher, str | os.PathLike):
        return type(teacher).__name__  # an error tells what it is
    path = Path(teacher)
    files = [path] if is_file(path) else sorted(path.glob("*.safetensors")) if path.is_dir() else []
    return {"path": str(teacher), "sha256": [file_digest(file) for file in files]} if files else str(teacher)


@dataclass(frozen=True)
class Wanted:
    """The outputs of a teacher that a student learns from.

    Attributes:
        logits: Places of the logits.
        pooled: Whether pooled features are wanted.
        maps: Grids by the names of layer groups.
    """

    logits: tuple[int, ...] = ()
    pooled: bool = False
    maps: tuple[tuple[str, tuple[int, ...]], ...] = ()


class TeacherRows(nn.Module):
    """A row of numbers per sample: the wanted logits, pooled features and maps of a teacher, end to end.

    Args:
        teacher: The teacher.
        wanted: What of it.
        shapes: The shape of each output of a sample, in that order.

    Attributes:
        inputs: Those of the teacher.
        width: The length of a row.
    """

    def __init__(self, teacher: TaskModel, wanted: Wanted, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.teacher, self.inputs = teacher, teacher.inputs
        self._wanted, self._shapes = wanted, list(shapes)
        self._sizes = [torch.Size(shape).numel() for shape in shapes]
        self.width = sum(self._sizes)

    def forward(self, x: Any) -> Tensor:
        """Return the rows ``(batch, width)`` of a batch of inputs, float32."""
        return torch.cat([part.float().flatten(1) for part in teacher_outputs(self.teacher, x, self._wanted)], 1)

    def outputs(self, rows: Tensor) -> list[Tensor]:
        """Return the outputs in rows ``(batch, width)``, in their shapes."""
        parts = torch.split(rows, self._sizes, 1)
        return [part.reshape(len(rows), *shape) for part, shape in zip(parts, self._shapes, strict=True)]


def teacher_outputs(model: TaskModel, x: Any, wanted: Wanted) -> list[Tensor]:
    """Return the wanted outputs of a batch of inputs from one forward pass."""
    if not (wanted.pooled or wanted.maps):  # all that an ensemble has
        return [model(x)[:, list(wanted.logits)]]
    with tapped_groups(model, (name for name, _ in wanted.maps)) as tapped:
        features = model.backbone(x)
    found = [model.logits(features, x)[:, list(wanted.logits)]] if wanted.logits else []
    found += [pooled_features(model, features, x)] if wanted.pooled else []
    return found + [on_grid(map_of(model, tapped, name, x), grid) for name, grid in wanted.maps]


def tapped_groups(model: TaskModel, names: Iterable[str]) -> AbstractContextManager[dict[str, Any]]:
    """Return a context that records the outputs of layer groups, each once; of none if no name is given."""
    chosen = dict.fromkeys(names)
    return taps(model.groups, *chosen) if chosen else nullcontext({})


def pooled_features(model: TaskModel, features: Tensor, x: Any) -> Tensor:
    """Return pooled features ``(batch, dim)``, also of a model whose head takes maps as they are."""
    pooled = model.pool(features, x)
    mask = mask_of(x)
    return pooled if pooled.ndim == 2 else Pool(model.spec.features)(features, *(() if mask is None else (mask,)))


def map_of(model: TaskModel, tapped: Mapping[str, Any], name: str, x: Any) -> Tensor:
    """Return the map of a layer group of a model from the outputs of its groups."""
    return feature_map(tapped[name], model.spec, model.inputs, mask_of(x))
