"""The classes of a student among those of a teacher, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.errors import DataError, count, did_you_mean, examples


@dataclass(frozen=True)
class Shared:
    """Classes that both know, in the student's order.

    Attributes:
        student: Their places in the student's logits.
        teacher: Their places in the teacher's.
    """

    student: tuple[int, ...]
    teacher: tuple[int, ...]


def shared_classes(student: Sequence[str], teacher: Sequence[str] | None, outputs: int, *, partly: bool, least: int = 1) -> Shared:
    """Return the classes that both know; further classes of the teacher are left out.

    Args:
        student: The student's classes.
        teacher: The teacher's, or None where they have no names; as many as the student's are then taken in the same order.
        outputs: Number of the teacher's logits.
        partly: Whether classes that the teacher does not know are left out.
        least: Fewest classes to compare.

    Raises:
        DataError: If the teacher lacks classes, or knows none; with their names.
    """
    if teacher is None:
        if outputs == len(student):
            return Shared(tuple(range(outputs)), tuple(range(outputs)))
        raise DataError(
            f"the teacher has {count(outputs, 'output')} without names, and the student {count(len(student), 'class')}: "
            "they cannot be matched; give a teacher whose classes have names"
        )
    place = {name: index for index, name in enumerate(teacher)}
    missing = [name for name in student if name not in place]
    known = [(index, place[name]) for index, name in enumerate(student) if name in place]
    if len(known) < least or (missing and not partly):
        told = [f"{name!r}{did_you_mean(name, teacher)}" for name in missing]
        remedy = "give a teacher that knows them"
        if partly:
            remedy += f"; both know {count(len(known), 'class')}, of which classes='shared' (--set classes=shared) needs {least} or more"
        elif len(known) >= least:
            remedy += f", or classes='shared' (--set classes=shared) to learn the other {len(known)} from it"
        raise DataError(
            f"the teacher does not know {len(missing)} of the student's {count(len(student), 'class')}: {examples(told)}; "
            f"it has: {examples([repr(name) for name in teacher])}; {remedy}"
        )
    return Shared(tuple(one for one, _ in known), tuple(other for _, other in known))
