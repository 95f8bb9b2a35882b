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
    first = words.partition("=")[0].strip()
    if "=" not in words or any(sign in first for sign in "/\\."):
        return words
    found: dict[str, str] = {}
    name = ""
    for part in words.split(","):
        key, sign, path = part.partition("=")
        if sign and (key.strip() in several.names or not name):
            name = key.strip()
            if name in found:
                raise OptionError(f"{words!r} names two data sets for task {name!r}; give one, such as a table of both")
            found[name] = path
        else:
            found[name] += f",{part}"  # of the path
    return found
