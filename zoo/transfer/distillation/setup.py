"""Teacher, classes, layer groups and data of a distillation, checked before anything trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.data.open import open_data
from zoo.data.table import Table
from zoo.declare import Inputs
from zoo.engine.loading.samples import samples_for
from zoo.engine.loading.sources import beside_training, channels_of, reads
from zoo.engine.loading.stream import Source
from zoo.engine.objective.supervised import Supervised
from zoo.engine.options.config import Config
from zoo.errors import OptionError, fault_list
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.transfer.distillation.classes import Shared, shared_classes
from zoo.transfer.distillation.feature_maps import common_grid
from zoo.transfer.distillation.objective import Distilling, Parts
from zoo.transfer.distillation.options import DistillOptions
from zoo.transfer.distillation.output_file import OutputFile
from zoo.transfer.distillation.pairs import Pairs, faults_of, read_pairs
from zoo.transfer.distillation.teacher import TeacherRows, Wanted, map_of, open_teacher, tapped_groups, teacher_outputs

_TASKS = ("single-label", "multi-label", "regression")


def distilling(method: DistillOptions, base: Supervised) -> Distilling:
    """Return the objective of a student; see ``Distill``."""
    task = find_task(base.model.task)
    if task.name not in _TASKS:
        raise OptionError(f"distill is for {', '.join(_TASKS)}; the task is {task.words}")
    features, attention = read_pairs(method.features, "features"), read_pairs(method.attention, "attention")
    teacher = open_teacher(method.teacher, task)
    _check(method, base.model, teacher, features, attention)
    classes = _classes(method, base, teacher) if method.weight else Shared((), ())
    sources = dict(base.sources)
    if method.unlabelled is not None:
        sources["unlabelled"] = Source(_unlabelled(method.unlabelled, base.model, base.sources["train"].table, base.config))
    if isinstance(teacher, OutputFile):
        if getattr(base.model.inputs, "overflow", "") == "windows":
            raise OptionError("a teacher's file has a row per text, and overflow='windows' trains on parts of texts; give a model")
        rows = {name: torch.from_numpy(teacher.rows_of(source.table)[:, list(classes.teacher)]) for name, source in sources.items()}
        return Distilling(base, method, Parts(sources, classes, kept=rows))
    few = _Few(base.sources["train"].table)
    return Distilling(base, method, few.parts(sources, classes, base.model, teacher, features, attention, method))


def _check(method: DistillOptions, student: TaskModel, teacher: TaskModel | OutputFile, features: Pairs, attention: Pairs) -> None:
    """Raise for everything that a student cannot learn from a teacher.

    Raises:
        OptionError: With all faults.
    """
    faults, relations = [], method.distance_weight or method.angle_weight
    if isinstance(teacher, OutputFile):
        faults += [f"{name}: a file has logits alone; give a model" for name in ("features", "attention") if getattr(method, name)]
        faults += ["distance_weight, angle_weight: a file has logits alone; give a model"] if relations else []
    else:
        faults += _faults_of_model(method, student, teacher)
        if (features or attention or relations) and not hasattr(teacher, "groups"):
            faults.append("features, attention, relations: an ensemble has logits alone; give one of its members")
        elif features or attention:
            faults += faults_of(features, "features", student.groups, teacher.groups)
            faults += faults_of(attention, "attention", student.groups, teacher.groups)
    if method.token:
        declared = student.spec.features
        if declared.layout != "BND" or declared.prefix_tokens < 2 or student.spec.modality != "image":
            remedy = "take a backbone that has one, such as deit_*_distilled"
            faults.append(f"token: {student.spec.name} has no distillation token beside its class token; {remedy}")
        if not method.weight or not find_task(student.task).exclusive:
            faults.append("token: it learns the teacher's classes; the task must be single-label and weight above 0")
    if faults:
        raise OptionError(fault_list("the student cannot learn from this teacher:", faults))


def _faults_of_model(method: DistillOptions, student: TaskModel, teacher: TaskModel) -> list[str]:
    faults = []
    if teacher is student:
        faults.append("it is the student itself; give a copy (copy.deepcopy(model)), or a saved model")
    if teacher.spec.modality != student.spec.modality:
        faults.append(f"it reads {teacher.spec.modality}, and the student {student.spec.modality}; both must read the same samples")
    if method.weight and teacher.has_random_head:
        faults.append(
            f"its head has random values: {teacher.spec.name} is not trained for this task; train it first "
            "(zoo train … --out runs/teacher) and give that folder, or set weight=0 and learn its features"
        )
    elif method.weight and teacher.task != student.task:
        faults.append(f"its task is {teacher.task}, and the student's {student.task}")
    return faults


def _classes(method: DistillOptions, base: Supervised, teacher: TaskModel | OutputFile) -> Shared:
    """Return which logits are compared."""
    model = base.model
    outputs = teacher.logits.shape[1] if isinstance(teacher, OutputFile) else teacher.num_classes
    task = find_task(model.task)
    if not task.has_classes:
        if outputs != model.num_classes:
            raise OptionError(f"the teacher gives {outputs} numbers per sample, and the student {model.num_classes}")
        return Shared(tuple(range(outputs)), tuple(range(outputs)))
    own = model.labels or base.sources["train"].table.classes
    names = None if teacher.labels is None else list(map(str, teacher.labels))
    return shared_classes(list(map(str, own)), names, outputs, partly=method.classes == "shared", least=2 if task.exclusive else 1)


def _unlabelled(source: Any, model: TaskModel, train: Table, config: Config) -> Table:
    """Return a table without labels, also of one that has some: theirs may be of other classes."""
    if not isinstance(source, Table):
        source = open_data(source, task=model.task, labelled=False, reads=reads(model), channels=channels_of(model))
    return replace(beside_training(model, source, train, config), targets=None, classes=())


@dataclass(frozen=True)
class _Few:
    """The first samples, by which shapes are found."""

    table: Table

    def of(self, inputs: Inputs, device: torch.device) -> Any:
        samples: Any = samples_for(inputs, self.table.select(np.arange(min(2, len(self.table)))))
        x = samples.collate([samples[row] for row in range(len(samples))]).x
        return {name: values.to(device) for name, values in x.items()} if isinstance(x, Mapping) else x.to(device)

    def maps(self, model: TaskModel, names: list[str]) -> dict[str, Tensor]:
        """Return the maps of layer groups."""
        x = self.of(model.inputs, next(model.parameters()).device)
        with _without_gradients(model), tapped_groups(model, names) as tapped:
            model.backbone(x)
        return {name: map_of(model, tapped, name, x) for name in names}

    def parts(
        self,
        sources: Mapping[str, Source],
        classes: Shared,
        student: TaskModel,
        teacher: TaskModel,
        features: Pairs,
        attention: Pairs,
        method: DistillOptions,
    ) -> Parts:
        """Return the parts of the objective: the teacher's rows, the grids of the pairs and the projections."""
        pairs = features + attention
        own = self.maps(student, list(dict.fromkeys(one for one, _ in pairs))) if pairs else {}
        theirs = self.maps(teacher, list(dict.fromkeys(other for _, other in pairs))) if pairs else {}
        grids = [common_grid(own[one].shape[2:], theirs[other].shape[2:]) for one, other in pairs]
        if flat := [f"{one}:{other}" for (one, other), grid in zip(attention, grids[len(features) :], strict=True) if not grid]:
            raise OptionError(f"attention: {', '.join(flat)} have no places in common (texts have none); give them as features")
        wanted = Wanted(
            classes.teacher,
            bool(method.distance_weight or method.angle_weight),
            tuple((other, grid) for (_, other), grid in zip(pairs, grids, strict=True)),
        )
        x = self.of(teacher.inputs, next(teacher.parameters()).device)
        with _without_gradients(teacher):
            shapes = [tuple(part.shape[1:]) for part in teacher_outputs(teacher, x, wanted)]
        projections = [nn.Linear(own[one].shape[1], theirs[other].shape[1]) for one, other in features]
        return Parts(sources, classes, TeacherRows(teacher, wanted, shapes), features, attention, tuple(grids), nn.ModuleList(projections))


@contextmanager
def _without_gradients(model: TaskModel) -> Iterator[None]:
    """Put a model into eval mode without gradients while the context is open, in place."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
