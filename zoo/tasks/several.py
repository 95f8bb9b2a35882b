"""Several tasks on one backbone: their outputs and targets side by side, a label of each sample for any of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from zoo.data.raw import TaskLabels
from zoo.data.sources.cells import is_unlabelled
from zoo.data.table import Part, pick
from zoo.errors import DataError, fault_list
from zoo.tasks.labels.encode import encode
from zoo.tasks.labels.names import plain
from zoo.tasks.losses import CONVEX
from zoo.tasks.member import Member
from zoo.tasks.task import Array, Task

if TYPE_CHECKING:
    from torch import Tensor

MEAN = "mean"  # the metric over all tasks


class SeveralTasks(Task):
    """Tasks whose losses are added up; a sample counts for those that it has a label of.

    Its name says what it is made of, such as ``kind=single-label:5,age=regression:1``, so a saved model needs no more. The outputs
    of classes are named ``kind/cat``; metrics are named ``kind/accuracy``.

    Args:
        members: The tasks, two or more, none of which labels words.

    Attributes:
        members: The tasks with the places of their outputs.
    """

    useless: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"balanced_sampling": "it balances the classes of one task; objective='multi-task' has a sampling of tasks"}
    )
    card: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(self, members: Sequence[Member]) -> None:
        start, placed = 0, []
        for member in members:
            placed.append(Member(member.name, member.task, member.outputs, start))
            start += member.outputs
        self.members = tuple(placed)
        of_all = [(member, name) for member in placed for name in member.task.monitors]
        # What other tasks have as attributes of their class.
        vars(self).update(
            name=",".join(member.written for member in placed),
            monitors=(*([MEAN] if any(member.score for member in placed) else []), "loss", *(f"{one.name}/{name}" for one, name in of_all)),
            lower_is_better=frozenset({"loss", *(f"{one.name}/{name}" for one, name in of_all if name in one.task.lower_is_better)}),
            least_outputs=sum(member.task.least_outputs for member in placed),
            standardized=any(member.task.standardized for member in placed),
            convex=all(member.task.convex or next(iter(member.task.losses), "") in CONVEX for member in placed),
        )

    @property
    def words(self) -> str:
        """The tasks for a sentence that begins with "the task is": ``several: kind (single-label), age (regression)``."""
        return f"several: {', '.join(f'{member.name} ({member.task.name})' for member in self.members)}"

    @property
    def names(self) -> list[str]:
        """Names of the tasks."""
        return [member.name for member in self.members]

    def sized(self, classes: Sequence[str]) -> SeveralTasks:
        """Return these tasks with the numbers of outputs that the names of all outputs have."""
        return SeveralTasks([Member(one.name, one.task, one.count(classes)) for one in self.members])

    def parts(self, classes: Sequence[str]) -> tuple[Part, ...]:
        """Return the columns of each task in a table with these names of outputs."""
        return tuple(member.part for member in self.sized(classes).members)

    def parse(self, labels: Sequence[Any], classes: Sequence[str] | None, source: str) -> Sequence[Any]:
        """Return the labels of each task in the form that is decided over all of them."""
        columns = [list(column) for column in zip(*(label.values for label in _by_task(labels, self.names, source)), strict=True)]
        for member, column in zip(self.members, columns, strict=True):
            rows = [row for row, cell in enumerate(column) if not is_unlabelled(cell)]
            parsed = member.task.parse([plain(column[row]) for row in rows], member.own_classes(classes), f"{source}, task {member.name!r}")
            for row, cell in zip(rows, parsed, strict=True):
                column[row] = cell
        return [TaskLabels(tuple(self.names), row) for row in zip(*columns, strict=True)]

    def encode(
        self, labels: Sequence[Any], inputs: Sequence[Any], classes: Sequence[str] | None, source: str
    ) -> tuple[Array, tuple[str, ...]]:
        """Return float32 rows ``(n, outputs)``, NaN in the columns of a task whose label is missing, and the names of all outputs."""
        found = _by_task(labels, self.names, source)
        blocks, names, faults = list[Array](), list[str](), list[str]()
        for place, member in enumerate(self.members):
            cells = [label.values[place] for label in found]
            rows = [row for row, cell in enumerate(cells) if not is_unlabelled(cell)]
            own = member.own_classes(classes)
            outputs = member.outputs if own is None else len(own)
            targets = np.empty(0)
            if rows:
                given: dict[str, Any] = {"task": member.task, "classes": own, "source": f"{source}, task {member.name!r}"}
                targets, own = encode([cells[row] for row in rows], pick(inputs, rows), **given)
                outputs = member.task.outputs(targets, own)
            elif not outputs or (member.task.has_classes and own is None):
                faults.append(f"no row has a label of task {member.name!r}, so its classes or values are unknown")
                continue
            if member.outputs and outputs != member.outputs:
                what = "classes" if member.task.has_classes else "values per sample"
                faults.append(f"task {member.name!r} has {outputs} {what}, and the model {member.outputs}")
            block = np.full((len(labels), outputs), np.nan, dtype=np.float32)
            block[rows] = member.spread(targets, outputs) if rows else 0
            blocks.append(block)
            names += member.names(own or (), outputs)
        if faults:
            raise DataError(fault_list(f"{source} does not fit the tasks:", faults, "Give each task rows with its labels"))
        return np.concatenate(blocks, axis=1), tuple(names)

    def losses_by_member(self, logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> list[Tensor]:
        """Return the sum of the losses of each task; arguments as in ``loss``."""
        return [member.loss(logits, targets, weights=weights, smoothing=smoothing) for member in self.members]

    def loss(self, logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        """Return the sum of the losses of all tasks; a regression's are in standard units."""
        import torch

        return torch.stack(self.losses_by_member(logits, targets, weights=weights, smoothing=smoothing)).sum()

    def class_weights(self, targets: Array, classes: Sequence[str]) -> Array:
        """Return the weights of the classes of each task, 1 for numbers."""
        found = [
            member.task.class_weights(truth, member.own_classes(classes) or ()) if member.task.has_classes else np.ones(member.outputs)
            for member, _, truth in self._labelled(targets)
        ]
        return np.concatenate(found)

    def metrics(self, logits: Array, targets: Array, classes: Sequence[str]) -> dict[str, float]:
        """Return the metrics of each task over the samples that have its label, ``mean`` and ``loss``.

        ``mean`` is that of the tasks' first metrics of which more is better (accuracy, map, r2), ``loss`` the sum of their losses,
        for a regression the squared error as a share of the variance.
        """
        by_task: dict[str, dict[str, float]] = {}
        for member, rows, truth in self._labelled(targets):
            if len(rows):
                found = member.task.metrics(logits[rows][:, member.columns], truth, member.own_classes(classes) or ())
                loss = {} if "loss" in found or "r2" not in found else {"loss": 1 - found["r2"]}
                by_task[member.name] = loss | found
        scores = [by_task[one.name][one.score] for one in self.members if one.score in by_task.get(one.name, {})]
        losses = [found["loss"] for found in by_task.values() if "loss" in found]
        of_all = ({MEAN: float(np.mean(scores))} if scores else {}) | ({"loss": float(np.sum(losses))} if losses else {})
        return of_all | {f"{name}/{key}": value for name, found in by_task.items() for key, value in found.items()}

    def weighted_metrics(self, logits: Array, targets: Array, weights: Array) -> dict[str, Array] | None:
        """Return the metrics of each task for each row of weights."""
        result: dict[str, Array] = {}
        for member, rows, truth in self._labelled(targets):
            found = member.task.weighted_metrics(logits[rows][:, member.columns], truth, weights[:, rows]) if len(rows) else None
            result |= {f"{member.name}/{key}": values for key, values in (found or {}).items()}
        return result

    def pool(self, logits: Array) -> Array:
        """Return the logits of a text for those of its windows, pooled as each task does."""
        return np.concatenate([np.atleast_1d(member.task.pool(logits[:, member.columns])) for member in self.members])

    def probabilities(self, logits: Array) -> Array | None:
        """Return the probabilities of the classes of each task; the numbers of a regression stand among them as they are."""
        found = [(member.task.probabilities(logits[:, member.columns]), logits[:, member.columns]) for member in self.members]
        return np.concatenate([own if shares is None else shares for shares, own in found], axis=1)

    def decode(self, logits: Array, labels: Sequence[Any]) -> list[Any]:
        """Return a dict with the prediction of each task."""
        columns = [member.task.decode(logits[:, member.columns], member.own_classes(labels) or ()) for member in self.members]
        return [dict(zip(self.names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _labelled(self, targets: Array) -> Iterator[tuple[Member, Array, Array]]:
        """Yield each task with the rows that have its label, and their targets as it reads them."""
        for member in self.members:
            rows = member.part.known(targets)
            yield member, rows, member.truth(targets[rows])


def _by_task(labels: Sequence[Any], names: Sequence[str], source: str) -> Sequence[TaskLabels]:
    """Return labels of several tasks.

    Raises:
        DataError: If a sample has something else.
    """
    odd = next((label for label in labels if not isinstance(label, TaskLabels)), None)
    if odd is not None:
        columns = ", ".join(f"{name!r}: …" for name in names)
        raise DataError(
            f"{source} has one label per sample, such as {odd!r}, and there are several tasks: give a table with a column for each, "
            f"(inputs, {{{columns}}}), or a data set for each: {{{columns}}}"
        )
    return labels
