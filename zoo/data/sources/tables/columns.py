"""Columns of a table by their role: the input, the label, the split, the group."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from zoo.data.label_cells import indicator_columns
from zoo.data.raw import ReadOptions
from zoo.data.sources.tables.headers import headerless_hint
from zoo.data.sources.tables.table_files import refuse_equal_names
from zoo.data.table import SPLIT_WORDS, split_word
from zoo.errors import LISTED, DataError, check_options, did_you_mean, examples

log = logging.getLogger("zoo")
MOST = 40  # columns in a remedy that is meant to be copied; CheXpert has 14 labels

# Columns of a row's input, by what the model reads; the first is required.
_INPUTS = {"image": ("file_name",), "volume": ("file_name",), "text": ("text", "text_pair"), "words": ("words",)}
# Default names of the columns; the first one found is used.
USUAL = {
    "file_name": (
        *("file_name", "path", "file", "filename", "file_path", "filepath", "image", "img"),
        *("image_path", "image_name", "image_id", "id_code"),
    ),
    "text": ("text", "sentence", "sentence1", "premise", "question", "review", "content"),
    "text_pair": ("text_pair", "text2", "sentence2", "hypothesis", "answer"),
    "words": ("words", "tokens"),
    "label": ("label", "labels", "tags", "ner_tags"),
    "split": ("split", "is_valid"),
    "group": ("group", "patient_id", "patient", "subject_id", "subject"),
}
# Names of columns that may have a role, and are proposed only; without what is not compared.
LIKELY = {
    "file_name": ("imagefile", "imagefilename", "imgname", "photo", "picture", "scan", "name", "id", "uid", "uuid"),
    "label": ("class", "classname", "target", "category", "diagnosis", "species", "breed", "finding", "sentiment", "y"),
    "text": ("comment", "tweet", "message", "abstract", "body", "description", "title"),
}
TEXT_COLUMNS = (*USUAL["text"], *USUAL["label"])
_LOOKED_AT = 1000  # rows by which a column is judged
Cells: TypeAlias = Callable[[str, "int | None"], "list[Any]"]  # of a column, by its name, and how many


def names_files(names: Sequence[str]) -> bool:
    """Return whether columns of these names have one that is read as the files."""
    return bool(usual_columns("file_name", names))


def has_labels(names: Sequence[str]) -> bool:
    """Return whether columns of these names have one that is read as the labels."""
    return bool(usual_columns("label", names))


def usual_columns(role: str, names: Sequence[Any], usual: Sequence[str] = ()) -> list[Any]:
    """Return the columns that are read in a role without being named, the one that is taken first.

    Case, blanks, hyphens and underscores do not matter, so ``Patient ID`` is ``patient_id``; an exact name goes first.

    Args:
        role: The role.
        names: The columns of a source.
        usual: Their usual names in this role; by default those of tables.
    """
    usual = usual or USUAL[role]
    plain = {name: plain_name(name) for name in names if isinstance(name, str)}
    exact = [name for name in usual if name in plain]
    return [*exact, *(name for one in usual for name in plain if plain[name] == plain_name(one) and name not in exact)]


def plain_name(name: str) -> str:
    """Return the name of a column without what is not compared."""
    return "".join(letter for letter in name.casefold() if letter not in " _-")


def find_columns(names: Sequence[str], options: ReadOptions, source: str, cells: Cells | None = None) -> dict[str, str]:
    """Return the column of each role: those of the input, ``label``, ``split``, ``group``.

    Args:
        names: The columns.
        options: The options of the reader.
        source: For messages.
        cells: Gives the first values of a column, by which the remedy is chosen where a column is missing.

    Raises:
        DataError: If a required or a named column is missing; all at once, each with the nearest column.
    """
    columns, labelled, reads = options.columns, options.labelled, options.reads
    refuse_equal_names(list(names), source)
    roles = (*_INPUTS[reads], "label", "split", "group")
    check_options(columns, roles, "columns=", remedies=_turned_round(columns, roles))
    if options.label_columns:
        _check_label_columns(options, names, source)
        roles = tuple(role for role in roles if role != "label")
        labelled = None
    wanted = {role: (columns[role],) if role in columns else USUAL[role] for role in roles}
    found = {role: _taken(role, names, options, source) for role in roles}
    required = {roles[0], *columns} | ({"label"} if labelled else set())
    absent = [role for role in wanted if found[role] is None and role in required]
    headerless = _headerless(found, names, options, roles[0], cells)
    if headerless and not absent:
        raise DataError(f"{source} has no header. {headerless}")
    if absent:
        missing = ", ".join(f"{wanted[role][0]!r}{_near(role, wanted[role][0], names)}" for role in absent)
        hint = headerless or _hint_of_absent(absent, names, roles[0], cells)
        raise DataError(f"{source} has no column {missing}; it has: {examples(list(map(repr, names)), LISTED)}. {hint}")
    if found["group"] not in (None, "group", columns.get("group"), options.header_group):
        if options.labelled is False:
            found["group"] = None
        else:
            log.info(
                "%s: column %r is taken as the group column; groups stay on one side of a split; "
                "columns={'group': …} names another, 'none' takes none",
                source,
                found["group"],
            )
    if found["split"] is None and cells is not None and options.labelled is not False:
        _warn_of_splits([name for name in names if name not in found.values()], cells, source)
    return {role: name for role, name in found.items() if name is not None and not (role == "label" and options.labelled is False)}


def _warn_of_splits(names: Sequence[str], cells: Cells, source: str) -> None:
    """Warn of a column that is not read and says of each row that it is for training, validation or test."""
    known = frozenset(SPLIT_WORDS)
    for name in names:
        if plain_name(name) == "istrain":
            line = "%s: column %r is not read; name the splits in a column 'split': train and val"
            log.warning(line, source, name)
        if all(isinstance(cell, str) and split_word(cell) in known for cell in cells(name, _LOOKED_AT)):
            kinds = {split_word(cell) for cell in cells(name, None) if isinstance(cell, str)}
            if "train" in kinds and len(kinds) > 1:
                line = "%s: column %r names splits (%s) and is not read; columns={'split': %r} (--columns split=%s) reads it"
                log.warning(line, source, name, examples(sorted(kinds)), name, name)


def _headerless(found: dict[str, str | None], names: Sequence[str], options: ReadOptions, reads: str, cells: Cells | None) -> str:
    """Return the remedy where the first line of a table was read as its header; columns with usual names are one."""
    used = [name for role, name in found.items() if name is not None and not (role == "label" and options.labelled is False)]
    if cells is None or options.label_columns or any(name not in options.columns.values() for name in used):
        return ""
    return headerless_hint(names, used, cells, reads if options.labelled is False else f"{reads},label")


def _hint_of_absent(absent: Sequence[str], names: Sequence[str], reads: str, cells: Cells | None) -> str:
    """Return what to do about roles without a column."""
    textual = {*USUAL["text"], *USUAL["words"]} & {plain_name(name) for name in names if isinstance(name, str)}
    if reads == "file_name" and reads in absent and textual:
        return "It seems to hold texts, and the model reads files"
    found = indicator_columns({name: cells(name, _LOOKED_AT) for name in names}) if "label" in absent and cells else []
    hint = ""
    if found:
        columns, flags = examples(list(map(repr, found))), ",".join(found)
        given = (
            f"label_columns={found}, on the command line --label-columns {flags}"
            if len(found) <= MOST
            else "name them with label_columns=[…] (--label-columns A,B)"
        )
        hint = f"{columns} look like a column per class: {given}"
        absent = [role for role in absent if role != "label"]
    if not absent:
        return hint
    renames = ", ".join(f'"{role}": "{_likely(role, names) or "…"}"' for role in absent)
    flags = ",".join(f"{role}={_likely(role, names) or '…'}" for role in absent)
    return f"{hint}{'. ' if hint else ''}Name yours with columns={{{renames}}}, on the command line --columns {flags}"


def _near(role: str, wanted: str, names: Sequence[str]) -> str:
    """Return the column that is probably meant by an absent one, as a question, or an empty string."""
    likely = _likely(role, names) if wanted == USUAL[role][0] else ""
    return f" (is it {likely!r}?)" if likely else did_you_mean(wanted, names)


def _likely(role: str, names: Sequence[str]) -> str:
    """Return a column that may have a role by its name, too doubtful to be read without being named, or an empty string."""
    plain = {plain_name(name): name for name in reversed(names) if isinstance(name, str)}
    return next((plain[one] for one in LIKELY.get(role, ()) if one in plain), "")


def _turned_round(columns: Mapping[str, Any], roles: Sequence[str]) -> dict[str, str]:
    """Return the remedy for entries that map a column to its role."""
    turned = {name: role for name, role in columns.items() if name not in roles and role in roles}
    return {name: f"columns= maps a role to your column: {{{role!r}: {name!r}}} (--columns {role}={name})" for name, role in turned.items()}


def _taken(role: str, names: Sequence[str], options: ReadOptions, source: str) -> str | None:
    """Return the column of a role; of an input or a label the log names others that it could be."""
    if role == "group" and options.header_group:
        return options.header_group if options.header_group in names else None
    if role in options.columns:
        return options.columns[role] if options.columns[role] in names else None
    if role == "label" and (own := [name for name in options.tasks if name in names]):
        return own[0]
    found = usual_columns(role, names)
    if len(found) > 1 and (role in _INPUTS[options.reads][:1] or (role in ("label", "split") and options.labelled is not False)):
        others = examples([repr(name) for name in found[1:]])
        log.info("%s: column %r is taken as the %s, not %s; columns={%r: …} names another", source, found[0], role, others, role)
    return found[0] if found else None


def _check_label_columns(options: ReadOptions, names: Sequence[str], source: str) -> None:
    absent = [f"{name!r}{did_you_mean(name, names)}" for name in options.label_columns if name not in names]
    if absent:
        found = f"it has: {examples(list(map(repr, names)), 20)}"
        if options.tasks:
            remedy = "a task reads the column of its name, or the one that columns={TASK: COLUMN} (--columns TASK=COLUMN) names for it"
            raise DataError(f"{source} has no column {examples(absent)}, the labels of a task; {found}; {remedy}")
        raise DataError(f"{source} has no column {examples(absent)}, named by label_columns; {found}")
