"""Names of a multi-label column that are several labels joined by a separator at which cells are not split, as ``cat/dog``."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence

from zoo.errors import DataError, examples
from zoo.tasks.labels.names import SEPARATORS, WRITTEN_LIST, separator_hint

log = logging.getLogger("zoo")
_WITHIN_NAMES = (" and ", " ")  # of which names may well consist
_REMEDY = "labels are separated by '|', ';' or ',': write '|' in its place, or name the classes: adapt(labels=…) (--classes A,B)"


def check_joined(rows: Sequence[Sequence[str]], names: Collection[str], source: str) -> None:
    """Check that no name consists of several labels; what may as well be names is logged.

    A separator is taken for one where all parts of a name are names themselves, or where no sample has several labels and several
    names share a part. A blank or ``and``, of which names may consist, is only logged, and ``hot dog`` beside ``dog`` is not.

    Args:
        rows: The names of each sample.
        names: All of them, each once.
        source: Name of the data, for messages.

    Raises:
        DataError: With the names, and the separators that are read.
    """
    if any(WRITTEN_LIST.fullmatch(name) for name in names):
        log.warning("%s: %s", source, separator_hint(names))
        return
    known, several = frozenset(names), any(len(row) > 1 for row in rows)
    for separator in SEPARATORS:
        parts = {name: found for name in names if len(found := _parts(name, separator)) > 1}
        whole = [name for name, found in parts.items() if known.issuperset(found)]
        shared = Counter(part for found in parts.values() for part in set(found))
        names_alone = known if separator not in _WITHIN_NAMES else frozenset()
        alike = [name for name, found in parts.items() if any(shared[part] > 1 or part in names_alone for part in found)]
        certain = whole if several else whole or alike
        if certain and separator not in _WITHIN_NAMES:
            raise DataError(f"{source}: {_line(certain, separator)}; {_REMEDY}")
        if certain or (alike and separator == ","):
            log.warning("%s: %s; %s", source, _line(certain or alike, separator), _REMEDY)
            return


def _parts(name: str, separator: str) -> list[str]:
    return [part.strip() for part in name.split(separator) if part.strip()]


def _line(names: Sequence[str], separator: str) -> str:
    return f"{examples(list(map(repr, names)))} {'looks' if len(names) == 1 else 'look'} like several labels joined by {separator!r}"
