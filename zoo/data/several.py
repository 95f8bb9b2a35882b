"""Reading of labels for any task; of several tasks from a column each, or from a data set for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from zoo.data.raw import Raw, ReadOptions, TaskLabels, join
from zoo.data.sources.read import read
from zoo.data.table import NO_GROUP, Table
from zoo.errors import LISTED, DataError, OptionError, ZooError, count, did_you_mean, examples
from zoo.tasks.labels.columns import by_task
from zoo.tasks.member import Member
from zoo.tasks.several import SeveralTasks
from zoo.tasks.task import Task


def read_labelled(source: Any, options: ReadOptions, task: Task) -> Raw:
    """Read any source with its labels as a task reads them.

    Args:
        source: As ``zoo.data.open.open_data`` takes it; of several tasks also a data set for each, by its name, and
            ``(inputs, {task: labels})``.
        options: Options of the reader; ``columns`` may name the column of a task.
        task: The task.

    Raises:
        DataError: If the source cannot be read, or names a task that there is not.
    """
    if not isinstance(task, SeveralTasks):
        return by_task(read(source, options), task)
    named = {name: options.columns[name] for name in task.names if name in options.columns}
    columns = {name: named.get(name, name) for name in task.names}
    options = replace(options, columns={role: name for role, name in options.columns.items() if role not in columns})
    if options.label_columns or "label" in options.columns:
        remedy = "columns={TASK: COLUMN} (--columns TASK=COLUMN) names the column of a task"
        raise OptionError(f"there are several tasks, and no one label: {remedy}")
    if _is_by_task(source):
        return _of_data_sets(source, options, task, named)
    if options.labelled is False or isinstance(source, Table):
        return read(source, options)
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], Mapping):
        return _of_columns(*source, options, task)
    if isinstance(source, tuple):
        return read(source, options)  # its labels are refused when they are encoded
    return read(source, replace(options, tasks=tuple(task.names), label_columns=tuple(columns.values())))


def _is_by_task(source: Any) -> bool:
    """Return whether a source is a mapping of data sets, and no image of a Hub dataset."""
    return type(source) is dict and not {"bytes", "path"} & source.keys()


def _of_columns(inputs: Any, labels: Mapping[str, Any], options: ReadOptions, task: SeveralTasks) -> Raw:
    """Return rows of ``(inputs, {task: labels})``, each labels with one per input."""
    _check_names(labels, task, "the data in memory", all_of_them=True)
    raw = read((inputs, [*range(len(inputs))]), options)
    odd = [f"{name!r} has {len(labels[name])}" for name in task.names if len(labels[name]) != len(raw)]
    if odd:
        raise DataError(
            f"the arrays have {count(len(raw), 'input')}, and labels of other numbers: {examples(odd)}; None where one is missing"
        )
    rows = zip(*(_listed(labels[name]) for name in task.names), strict=True)
    return replace(raw, labels=[TaskLabels(tuple(task.names), row) for row in rows])


def _listed(labels: Any) -> list[Any]:
    return list(labels.tolist() if hasattr(labels, "tolist") else labels)


def _of_data_sets(sources: Mapping[str, Any], options: ReadOptions, task: SeveralTasks, named: Mapping[str, str]) -> Raw:
    """Return the rows of a data set for each task one after another, each with the label of its task alone.

    Args:
        sources: A data set for each task.
        options: Options of the reader.
        task: The tasks.
        named: Columns of labels that were named, by task.
    """
    _check_names(sources, task, "the data")
    own = {name: replace(options, tasks=(name,)) for name in task.names}
    own |= {name: replace(own[name], columns={**options.columns, "label": column}) for name, column in named.items()}
    parts = [_part(sources[member.name], own[member.name], member, task) for member in task.members if member.name in sources]
    split = [part.source for part in parts if part.splits is not None]
    if split and len(split) < len(parts):
        bare = [part.source for part in parts if part.splits is None]
        remedy = "give validation data for every task, such as valid={TASK: DATA} (--valid TASK=DATA), or for none"
        raise DataError(f"{examples(split)} have a split of their own, and {examples(bare)} have none; {remedy}")
    declared = all(part.classes is not None for member, part in _pairs(parts, task, sources) if member.task.has_classes)
    if any(part.groups is not None for part in parts):
        parts = [_with_groups(part, number) for number, part in enumerate(parts)]
    labelled = [
        replace(part, classes=tuple(member.names(part.classes or (), member.outputs or 1)) if declared else None)
        for member, part in _pairs(parts, task, sources)
    ]
    whole = join(labelled, " and ".join(dict.fromkeys(part.source for part in parts)))
    return replace(whole, splits=whole.splits if split else None, classes=whole.classes if len(parts) == len(task.members) else None)


def _pairs(parts: Sequence[Raw], task: SeveralTasks, sources: Mapping[str, Any]) -> list[tuple[Member, Raw]]:
    return list(zip([member for member in task.members if member.name in sources], parts, strict=True))


def _part(source: Any, options: ReadOptions, member: Member, task: SeveralTasks) -> Raw:
    """Return the rows of the data set of one task."""
    try:
        raw = by_task(read(source, options), member.task)
    except ZooError as error:
        error.args = (f"task {member.name!r}: {error}",)
        raise
    place, names = task.names.index(member.name), tuple(task.names)
    if raw.labels is None:
        return raw
    before, after = (None,) * place, (None,) * (len(names) - place - 1)
    return replace(raw, labels=[TaskLabels(names, (*before, label, *after)) for label in raw.labels])


def _with_groups(raw: Raw, number: int) -> Raw:
    """Return rows with a group for each: its own, or a new one."""
    return raw if raw.groups is not None else replace(raw, groups=[f"{NO_GROUP}{row} of data set {number}" for row in range(len(raw))])


def _check_names(given: Mapping[str, Any], task: SeveralTasks, source: str, *, all_of_them: bool = False) -> None:
    """Check that data are named by the tasks.

    Raises:
        DataError: Naming those that are not, each with the nearest task.
    """
    faults = [f"there is no task {name!r}{did_you_mean(str(name), task.names)}" for name in given if name not in task.names]
    faults += [f"task {name!r} has no labels" for name in task.names if all_of_them and name not in given]
    faults += ["there is no data set"] if not given else []
    if faults:
        raise DataError(f"{source}: {'; '.join(faults)}; the tasks are: {examples(task.names, LISTED)}")
