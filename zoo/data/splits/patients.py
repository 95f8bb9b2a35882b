"""Patients of DICOM files by their headers, as groups that no split divides where the data name none.

| headers | groups |
|---|---|
| several ``PatientID``, some of them with several samples | the patients |
| none, one for all or for most samples of several studies (a placeholder), or another for each sample of a study | the studies |
| no ids, or another id for each sample | none |

A study is of one patient (DICOM PS3.3 C.7.2.1), so that its slices belong together whatever became of the ids when files were made
anonymous; a patient may have several studies.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from zoo.data.images.scans.dicom import DICOM, can_read_headers, read_header
from zoo.data.raw import Raw, ReadOptions
from zoo.data.splits.train_valid import normal_group
from zoo.data.table import NO_GROUP, PIXELS
from zoo.errors import DataError, MissingExtraError, count, did_you_mean

PATIENT, STUDY = "PatientID", "StudyInstanceUID"
OFF = "none"  # the word in place of a column
OF_HEADERS = f"the groups are those of the DICOM headers, which columns={{'group': '{OFF}'}} ignores"
_KNOWN = (PATIENT, STUDY, "SeriesInstanceUID", "AccessionNumber", "IssuerOfPatientID", "StationName", "InstitutionName")
_KEYWORD = re.compile(r"[A-Z][A-Za-z0-9]+")
_MOST = 200_000  # headers that are remembered
_OTHERS = (
    f"columns={{'group': '{OFF}'}} takes none, and another attribute's name in its place, such as {STUDY}, takes that",
    "a column of a table names them (columns={'group': …})",
)
log = logging.getLogger("zoo")


def in_headers(columns: Mapping[str, Any], reads: str) -> tuple[dict[str, Any], str]:
    """Return the columns that are read, and what is taken as the group instead of one: ``none``, or an attribute of DICOM headers."""
    word = columns.get("group")
    if isinstance(word, str) and (word == OFF or (reads in PIXELS and _KEYWORD.fullmatch(word) and _is_attribute(word))):
        return {role: name for role, name in columns.items() if role != "group"}, word
    return dict(columns), ""


def near_attribute(word: str) -> str:
    """Return a hint at the attribute of DICOM headers that a group is meant to be; empty if none is near."""
    return did_you_mean(word, _KNOWN)


def _is_attribute(word: str) -> bool:
    try:
        from pydicom.datadict import tag_for_keyword
    except ImportError:
        return word in _KNOWN
    return tag_for_keyword(word) is not None


@dataclass(frozen=True)
class Known:
    """The groups that headers tell.

    Attributes:
        ids: The id of each row, empty where it is unknown or trusted in no row.
        attribute: What they are.
        odd: What is wrong with the ids of patients, in words; empty if they are trusted.
    """

    ids: tuple[str, ...]
    attribute: str
    odd: str = ""

    @property
    def number(self) -> int:
        """How many groups there are."""
        return len(set(map(normal_group, filter(None, self.ids))))

    @property
    def divides(self) -> bool:
        """Whether there are several groups, and one has several samples."""
        return 1 < self.number < sum(map(bool, self.ids))

    def groups(self) -> list[str]:
        """Return a group for each row; one without an id is of its own."""
        return [one or f"{NO_GROUP}{row}" for row, one in enumerate(self.ids)]


def known_groups(patients: Sequence[str], studies: Sequence[str]) -> Known:
    """Return the groups by the ids of patients where these can be trusted, else by the studies.

    Args:
        patients: ``PatientID`` per row, empty where there is none.
        studies: ``StudyInstanceUID`` per row.
    """
    found = Counter(normal_group(one) for one in patients if one)
    total = sum(found.values())
    first, most = found.most_common(1)[0] if found else ("", 0)
    of_first = {study or str(row) for row, (one, study) in enumerate(zip(patients, studies, strict=True)) if normal_group(one) == first}
    if not found:
        odd = "is empty"
    elif 2 * most > len(patients) and len(of_first) > 1:
        name = next(one for one in patients if normal_group(one) == first)
        odd = f"is {name!r} in {most} of them, as a placeholder is"
    elif len(found) == total > len({study for study in studies if study}) > 0:
        odd = "differs between samples of one study"
    else:
        return Known(tuple(patients), PATIENT)
    return Known(tuple(studies), STUDY, odd)


def with_patients(raws: Sequence[Raw], options: ReadOptions) -> list[Raw]:
    """Return rows with the patients of DICOM headers as groups where no source has groups; what is taken is logged.

    Headers are read without the pixels, and once for each state of a file.

    Args:
        raws: The rows of the sources of a run.
        options: The options of the reader; ``header_group`` names another attribute than ``PatientID``, or none.

    Raises:
        DataError: If no file has the attribute that is named.
        MissingExtraError: If pydicom is not installed, which would read it.
    """
    raws, word = list(raws), options.header_group
    if word == OFF or options.textual or any(raw.groups is not None for raw in raws):
        return raws
    names = (word,) if word else (PATIENT, STUDY)
    headers = [_header(item, names) for raw in raws for item in (raw.inputs if isinstance(raw.inputs, list) else [None] * len(raw))]
    source = " and ".join(dict.fromkeys(raw.source for raw in raws))
    files = sum(header is not None for header in headers)
    if word:
        known = Known(tuple((header or {}).get(word, "") for header in headers), word)
        if not known.number and not can_read_headers():
            raise MissingExtraError(f"{source} has no column {word}; an attribute of DICOM headers is read by pydicom: pip install pydicom")
        if not known.number:
            raise DataError(f"{source}: no DICOM file has {word} in its header, which is named as the group{_remedy(files)}")
    elif not files:
        return raws
    else:
        known = known_groups(*([(header or {}).get(name, "") for header in headers] for name in names))
    _tell(known, source, files)
    if not known.divides:
        return raws
    groups, found = known.groups(), []
    for raw in raws:
        found.append(replace(raw, groups=groups[: len(raw)]))
        groups = groups[len(raw) :]
    return found


def _remedy(files: int) -> str:
    return "; name a column of a table, or leave it out" if files else ": there is no DICOM file; name a column of a table"


def _tell(known: Known, source: str, files: int) -> None:
    """Log what is taken as groups, a warning where the ids of patients tell little."""
    without = len(known.ids) - sum(map(bool, known.ids))
    alone = f", {count(without, 'sample')} without an id count as groups of their own," if without else ""
    there = count(files, "DICOM file")
    if known.divides and not known.odd:
        what = "patients" if known.attribute == PATIENT else "groups"
        line = "%s: %d %s by the headers (%s) of %s%s are kept together; %s"
        log.info(line, source, known.number, what, known.attribute, there, alone, _OTHERS[0])
    elif known.divides:
        line = "%s: the %s of %s %s, so %d studies (%s)%s are kept together, and studies of one patient may be on both sides of a split; %s"
        log.warning(line, source, PATIENT, there, known.odd, known.number, known.attribute, alone, _OTHERS[1])
    elif known.odd or known.number < 2 < files:
        what = known.odd or f"is {next(filter(None, known.ids), '')!r} in all of them"
        line = "%s: the %s of %s %s, and nothing else in the headers tells which are of one patient, so a split may divide patients; %s"
        log.warning(line, source, known.attribute if not known.odd else PATIENT, there, what, _OTHERS[1])


def _header(item: Any, names: tuple[str, ...]) -> dict[str, str] | None:
    """Return entries of the header of an input; None if it is no DICOM file, or a lazy one."""
    if isinstance(item, Mapping):
        item = item["bytes"] if item.get("bytes") is not None else item.get("path")
    if isinstance(item, bytes):
        return read_header(item, names)
    if not isinstance(item, str | os.PathLike):
        return None
    path = os.fspath(item)
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122  # ten times faster
    if suffix not in ("", *DICOM) and not suffix[1:].isdigit() and not os.path.isdir(path):  # noqa: PTH112
        return None
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return _remembered(path, names, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=_MOST)
def _remembered(path: str, names: tuple[str, ...], _changed: int, _size: int) -> dict[str, str] | None:
    return read_header(path, names)
