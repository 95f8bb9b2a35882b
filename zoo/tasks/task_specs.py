"""Several tasks as ``adapt_tasks`` takes them: a number of classes, their names, or a table of settings for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.errors import OptionError, check_options, examples, fault_message
from zoo.tasks.find import faults_of_tasks, is_task, several_tasks
from zoo.tasks.labels.names import check_classes
from zoo.tasks.several import SeveralTasks
from zoo.util.numbers import is_whole

_KEYS = ("task", "classes", "outputs")


def tasks_of(given: Any) -> tuple[SeveralTasks, list[str] | None]:
    """Return several tasks, and the names of all outputs where the classes of every task have names.

    Args:
        given: For each task by name: a number of classes, a list of their names, the name of a task such as ``"regression"``, or a
            mapping with ``task``, and ``classes`` (a number or names) or ``outputs`` (of a regression, 1 if not given).

    Raises:
        OptionError: Naming everything that is wrong.
    """
    if not isinstance(given, Mapping):
        raise OptionError(f"adapt_tasks() takes a mapping from names to tasks, such as {{'kind': 5}}, not {type(given).__name__}")
    faults, members, names = list[str](), list[tuple[str, str, int]](), dict[str, list[str] | None]()
    for name, value in given.items():
        try:
            kind, outputs, classes = _read(str(name), value)
        except OptionError as error:
            faults.append(str(error))
            continue
        members.append((str(name), kind, outputs))
        names[str(name)] = classes
    faults += faults_of_tasks(members, others=len(given) - len(members))
    if faults:
        raise OptionError(fault_message("adapt_tasks() cannot work with these tasks:", faults))
    found = several_tasks(members)
    return found, _all_names(found, list(names.values()))


def _read(name: str, value: Any) -> tuple[str, int, list[str] | None]:
    """Return the kind of a task, its number of outputs and the names of its classes, None where they have none."""
    given = value if isinstance(value, Mapping) else {"task": value} if isinstance(value, str) else {"classes": value}
    check_options(given, _KEYS, f"task {name!r}")
    kind = str(given.get("task", "single-label"))
    classes: Any = given.get("classes", given.get("outputs"))
    if len({"classes", "outputs"} & given.keys()) > 1:
        raise OptionError(f"task {name!r} has classes and outputs; give one of them")
    if isinstance(classes, list | tuple):
        return kind, len(classes), list(check_classes(classes))
    if classes is None and kind == "regression":
        classes = 1
    if not is_whole(classes) or classes < 1:
        wanted = f"give a number, as in {{{name!r}: 5}}, or their names"
        raise OptionError(
            f"task {name!r} ({kind}) has {'no number of' if classes is None else repr(classes)} classes; {wanted}"
            if is_task(kind)
            else _unknown(name, kind)
        )
    return kind, int(classes), None


def _unknown(name: str, kind: str) -> str:
    return faults_of_tasks([(name, kind, 0)], others=1)[0]


def _all_names(tasks: SeveralTasks, classes: list[list[str] | None]) -> list[str] | None:
    """Return the names of all outputs, or None if no classes have names.

    Raises:
        OptionError: If those of some tasks have and those of others have not.
    """
    pairs = [(one, own) for one, own in zip(tasks.members, classes, strict=True) if one.task.has_classes]
    bare = [repr(member.name) for member, own in pairs if own is None]
    if pairs and len(bare) == len(pairs):
        return None
    if bare:
        named = [repr(member.name) for member, own in pairs if own is not None]
        raise OptionError(f"the classes of {examples(named)} have names, and those of {examples(bare)} have not; name all or none")
    return [name for one, own in zip(tasks.members, classes, strict=True) for name in one.names(own or (), one.outputs)]
