"""Look up tasks by name: the built-in ones and those of plugins."""

from __future__ import annotations

from zoo.errors import OptionError, did_you_mean
from zoo.registry.registry import default_registry
from zoo.tasks.multi_label import MultiLabel
from zoo.tasks.regression import Regression
from zoo.tasks.single_label import SingleLabel
from zoo.tasks.task import Task
from zoo.tasks.token_classification import TokenClassification

BUILTIN: dict[str, Task] = {task.name: task for task in (SingleLabel(), MultiLabel(), Regression(), TokenClassification())}


def find_task(name: str) -> Task:
    """Return the task of this name.

    Raises:
        OptionError: With the nearest name, if there is no such task.
        AmbiguousNameError: If more than one plugin gives it.
    """
    if name in BUILTIN:
        return BUILTIN[name]
    task = default_registry().task(name)
    if task is None:
        known = task_names()
        raise OptionError(f"there is no task {name!r}{did_you_mean(str(name), known)}; the tasks are: {', '.join(known)}")
    return task


def task_names() -> list[str]:
    """Return the names of all tasks, the built-in ones first."""
    return [*BUILTIN, *sorted(set(default_registry().task_names()) - set(BUILTIN))]
