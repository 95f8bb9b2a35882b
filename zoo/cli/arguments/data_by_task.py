"""A data set for each of several tasks, as the command line names them."""

from __future__ import annotations

from typing import Any

from zoo.errors import OptionError


def data_by_task(words: Any, task: str) -> Any:
    """Return ``kind=photos,age=ages.csv`` as a data set for each task; the words of one data set as they are.

    Args:
        words: The argument; False and None stay as they are.
        task: Name of the task, or of several tasks.

    Raises:
        OptionError: If a task is named twice.
    """
    from zoo.tasks.find import find_task
    from zoo.tasks.several import SeveralTasks

    several = find_task(task)
    if not isinstance(words, str) or not isinstance(several, SeveralTasks):
        return words
    if not _names_task(words.partition("=")):
        return words
    found: dict[str, str] = {}
    name = ""
    for part in words.split(","):
        if _names_task(pair := part.partition("=")):
            name = pair[0].strip()
            if name in found:
                raise OptionError(f"{words!r} names two data sets for task {name!r}; give one, such as a table of both")
            found[name] = pair[2]
        else:
            found[name] += f",{part}"  # of the path
    return found


def _names_task(pair: tuple[str, str, str]) -> bool:
    """Return whether a word before ``=`` is a name, and no part of a path."""
    return bool(pair[1]) and not any(sign in pair[0] for sign in "/\\.")
