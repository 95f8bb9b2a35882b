"""Log lines about labels that are read as they are, and may be meant otherwise."""

from __future__ import annotations

import logging

import numpy as np

from zoo.data.table import Table
from zoo.errors import count, examples
from zoo.tasks.labels.names import is_number
from zoo.tasks.labels.spelling import looks_alike

log = logging.getLogger("zoo")
_SHOWN = 8
# What people write where a label is missing, in lower case.
_BLANKS = {"n/a", "#n/a", "na", "<na>", "none", "null", "nil", "missing", "unknown", "unlabeled", "unlabelled", "not available", "tbd"}
_BLANKS |= {"?", "??", "-", "--", "\N{EN DASH}", "\N{EM DASH}", ".", "-1"}


def warn_of_labels(table: Table, *, found: bool, can_drop: bool = False) -> None:
    """Log what is odd about the labels of a table.

    Args:
        table: The rows.
        found: Whether its classes were found in the labels, and not given.
        can_drop: Whether the caller has the option ``drop_other_classes``, which a line then proposes.
    """
    log_missing(table)
    if table.targets is None:
        return
    _warn_of_one_number(table)
    _warn_of_one_word(table)
    _warn_of_lists(table)
    _warn_of_one_sided(table)
    _log_none(table)
    if found:
        _warn_of_blanks(table, can_drop=can_drop)
    if found and (alike := looks_alike(table.classes)):
        pairs = [" and ".join(map(repr, names)) for names in alike]
        line = (
            "%s: classes that differ in case, blanks or the spelling of a number only are classes of their own: %s; if they are one, "
            "write them alike"
        )
        log.warning(line, table.source, examples(pairs))


def log_missing(table: Table) -> None:
    """Log how many labels of a multi-label table are missing, per label, or of several tasks, per task."""
    missing = table.missing()
    if missing:
        some = [f"{name!r} {number}" for name, number in sorted(missing.items(), key=lambda item: -item[1])]
        line = "%s: %d of %d labels are missing; they count neither in the loss nor in a metric: %s"
        whole = len(table) * len(table.parts) if table.parts else np.asarray(table.targets).size
        log.info(line, table.source, sum(missing.values()), whole, examples(some, _SHOWN))


def _warn_of_one_sided(table: Table) -> None:
    """Warn of labels whose known values are all 1, or all 0: nothing can be learnt from them, and any model is perfect."""
    if table.targets is None or not table.classes or table.targets.ndim != 2 or table.parts:
        return
    known = ~np.isnan(table.targets)
    blank = ~known.all(0)
    for value, word in ((1, "positive"), (0, "negative")):
        one_sided = known.any(0) & ((table.targets == value) | ~known).all(0) & (blank | (value == 1))
        names = [f"{name!r} ({number})" for name, number, odd in zip(table.classes, known.sum(0), one_sided, strict=True) if odd]
        if names:
            remedy = "if a blank means no, fill the blanks with 0; else add samples of the other kind"
            if not (one_sided & blank).any():
                remedy = "add samples without it, or leave it out"
            line = "%s: every known value of %s is %s: %s; a model would learn to say the same of everything; %s"
            log.warning(line, table.source, count(len(names), "label"), word, examples(names, _SHOWN), remedy)


def _log_none(table: Table) -> None:
    """Log how many samples of a multi-label table have none of the classes, as an empty cell means."""
    if table.targets is None or not table.classes or table.targets.ndim != 2 or not len(table.classes):
        return
    number = int((table.targets == 0).all(1).sum())
    if number:
        line = "%s: %s of %d have none of the classes (an empty cell of names means that); leave out rows that nobody labelled"
        log.info(line, table.source, count(number, "sample"), len(table))


def _warn_of_blanks(table: Table, *, can_drop: bool) -> None:
    """Warn of classes whose names people write for a missing label."""
    if table.reads == "words" or all(map(is_number, table.classes)):
        return
    blank = [f"{name!r} ({number})" for name, number in table.counts().items() if name.lower() in _BLANKS]
    if not blank:
        return
    single = table.targets is not None and table.targets.ndim == 1
    more = ", or name the classes to keep, adapt(labels=…) (--classes A,B), with drop_other_classes=True (--drop-other-classes)"
    is_class = ("is", "counts as a class") if len(blank) == 1 else ("are", "count as classes")
    line = "%s: %s %s written like a missing label, and %s: %s; if no label is meant, remove these rows%s"
    log.warning(line, table.source, count(len(blank), "class"), *is_class, examples(blank), more if single and can_drop else "")


def _warn_of_one_number(table: Table) -> None:
    """Warn of numbers that are the same for all samples, of which r2, a share of their variance, says nothing."""
    targets = np.asarray(table.targets)
    if table.classes or targets.dtype.kind != "f" or len(targets) < 2:
        return
    columns = targets.reshape(len(targets), -1)
    for number, values in enumerate(columns.T, 1):
        if (values == values[0]).all():
            of = "" if columns.shape[1] == 1 else f" of output {number}"
            line = (
                "%s: all %d targets%s are %g: there is nothing to learn or to tell apart, and r2 says nothing; is another column meant "
                "(columns={'label': 'NAME'})?"
            )
            log.warning(line, table.source, len(targets), of, values[0])


def _warn_of_one_word(table: Table) -> None:
    if table.reads != "words" or table.targets is None or len(table) < 2 or any(len(row) != 1 for row in table.targets):
        return
    line = "%s: each of the %d sentences has one word, so no word is read in its context; put an empty line between sentences only"
    log.warning(line, table.source, len(table))


def _warn_of_lists(table: Table) -> None:
    """Warn of classes that are lists of other classes, as ``a|b`` beside ``a`` and ``b``: one sample then seems to have several labels."""
    for mark in "|;,":
        lists = [name for name in table.classes if mark in name]
        parts = {part.strip() for name in lists for part in name.split(mark)}
        if lists and table.targets is not None and table.targets.ndim == 1 and parts & {*table.classes}:
            line = (
                "%s: %s of classes are taken as classes of their own: %s; if a sample has several labels, take task='multi-label' (--task)"
            )
            log.warning(line, table.source, count(len(lists), "list"), examples([*map(repr, lists)]))
            return
