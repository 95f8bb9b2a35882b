"""Look up tasks by name: the built-in ones and those of plugins."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from zoo.errors import OptionError, count, did_you_mean, fault_list, refusals
from zoo.registry.registry import default_registry
from zoo.tasks.member import Member
from zoo.tasks.multi_label import MultiLabel
from zoo.tasks.regression import Regression
from zoo.tasks.several import SeveralTasks
from zoo.tasks.single_label import SingleLabel
from zoo.tasks.task import Task
from zoo.tasks.token_classification import TokenClassification

BUILTIN: dict[str, Task] = {task.name: task for task in (SingleLabel(), MultiLabel(), Regression(), TokenClassification())}
_SYNONYMS = (
    dict.fromkeys(
        ("classification", "multiclass", "multi-class", "multi-class-classification", "binary", "single", "text-classification"),
        "single-label",
    )
    | dict.fromkeys(("image-classification", "sequence-classification"), "single-label")
    | dict.fromkeys(("ner", "tagging", "pos", "words", "sequence-labeling"), "token-classification")
)


def find_task(name: str) -> Task:
    """Return the task of this name; of several tasks such as ``kind=single-label:5,age=regression``, each by its own name.

    Raises:
        OptionError: With the nearest name, if there is no such task.
        AmbiguousNameError: If more than one plugin gives it.
    """
    if name in BUILTIN:
        return BUILTIN[name]
    if "=" in str(name):
        return _several(name)
    task = default_registry().task(name)
    if task is None:
        known = task_names()
        raise OptionError(f"there is no task {name!r}{nearest_task(name)}; the tasks are: {', '.join(known)}")
    return task


def task_names() -> list[str]:
    """Return the names of all tasks, the built-in ones first."""
    return [*BUILTIN, *sorted(set(default_registry().task_names()) - set(BUILTIN))]


def nearest_task(name: object) -> str:
    """Return what to add to an unknown name: the task of that name in other libraries, or the nearest name; empty if there is none."""
    here = _SYNONYMS.get(str(name).lower().replace("_", "-"))
    return f" (it is called {here!r} here)" if here else did_you_mean(str(name), task_names())


def is_task(name: str) -> bool:
    """Return whether there is a task of this name, or each of several tasks is one."""
    try:
        return find_task(name) is not None
    except OptionError:
        return False


def several_tasks(members: Sequence[tuple[str, str, int]]) -> SeveralTasks:
    """Return several tasks from the name, the kind and the number of outputs of each; 0 where the data are to say it.

    Raises:
        OptionError: For all of ``faults_of_tasks``.
    """
    if faults := faults_of_tasks(members):
        raise OptionError(fault_list("these tasks cannot be learned together:", faults))
    return SeveralTasks([Member(_plain_name(name), find_task(kind.strip()), outputs) for name, kind, outputs in members])


def faults_of_tasks(members: Sequence[tuple[str, str, int]], *, others: int = 0) -> list[str]:
    """Return what is wrong with tasks: names that occur twice or cannot be used, unknown kinds, those that label words, a single one.

    Args:
        members: The name, the kind and the number of outputs of each.
        others: Number of tasks beside these.
    """
    names, faults = [_plain_name(name) for name, _, _ in members], list[str]()
    for name, (_, kind, outputs) in zip(names, members, strict=True):
        faults += refusals(_check_task_name, name)
        faults += [f"two tasks are called {name!r}; give each a name of its own"] if names.count(name) > 1 else []
        try:
            task = find_task(kind.strip())
        except OptionError as error:
            faults.append(f"task {name!r}: {error}")
            continue
        if task.per_token:
            faults.append(f"task {name!r} labels words ({kind}), so it has no input in common with others, which read whole samples")
        if isinstance(task, SeveralTasks):
            faults.append(f"task {name!r} is made of several tasks; name each of them here")
        if outputs and outputs < task.least_outputs:
            faults.append(f"task {name!r} has {count(outputs, 'output')}; {kind} needs at least {task.least_outputs}")
    faults += ["there is one task; several are two or more, and one is given by task= (--task)"] if len(members) + others < 2 else []
    return list(dict.fromkeys(faults))


def _plain_name(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


def _several(name: str) -> SeveralTasks:
    """Return the tasks of a name such as ``kind=single-label:5,age=regression``."""
    members = []
    for part in name.split(","):
        own, _, rest = part.partition("=")
        kind, _, outputs = rest.partition(":")
        if outputs and not outputs.strip().isdecimal():
            raise OptionError(f"task {own!r} has {outputs!r} outputs; give a whole number, such as {own}={kind}:5")
        members.append((own, kind, int(outputs or 0)))
    return several_tasks(members)


def _check_task_name(name: str) -> None:
    odd = [sign for sign in "=,:/" if sign in name]
    if odd or not name:
        what = f"has {' and '.join(map(repr, odd))}" if odd else "is empty"
        raise OptionError(
            f"the name {name!r} of a task {what}; another column is read with columns={{TASK: COLUMN}} (--columns TASK=COLUMN)"
        )
