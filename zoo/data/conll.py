"""Sentences with a label for each word, in the column format of the CoNLL shared tasks (Tjong Kim Sang & De Meulder 2003)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from zoo.data.raw import Raw
from zoo.errors import DataError, count, examples

SUFFIXES = (".conll", ".iob", ".iob2", ".bio", ".tsv", ".txt")
HEADERS = {"words", "tokens", "label", "labels", "tags", "ner_tags"}  # column names of tables with a row per sentence
_DOCUMENT = "-DOCSTART-"


def is_conll(path: Path) -> bool:
    """Return whether a file has a word and its label per line, with empty lines between sentences, and no header."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    if path.suffix.lower() not in (".tsv", ".txt"):
        return True
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        head = "".join(file.readline() for _ in range(1000)).strip()
    header = {cell.strip().lower() for cell in head.split("\n")[0].split("\t")}
    return any(not line.strip() for line in head.split("\n")) and not header & HEADERS


def refuse_conll(path: Path, columns: Collection[str]) -> None:
    """Raise for a file of words and labels that a model reads as texts, because no task was named.

    Args:
        path: A file.
        columns: Names of columns that a table of texts may have.

    Raises:
        DataError: Naming the task.
    """
    if not is_conll(path):
        return
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    if not {cell.strip().lower() for cell in first.split("\t")} & {*columns}:
        raise DataError(
            f"{str(path)!r} has a word and its label per line, as CoNLL files have, and no header; "
            "take the task for it: --task token-classification, adapt(…, task='token-classification')"
        )


def read_conll(path: Path, labelled: bool | None) -> Raw:
    """Read a file of words: the first column is the word, the last its label, an empty line ends a sentence.

    Raises:
        DataError: If the file cannot be read, or a line has a word and no label.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} cannot be read as text in UTF-8: {error}") from error
    words: list[list[str]] = [[]]
    labels: list[list[str]] = [[]]
    bare: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        cells = line.rstrip("\r").split("\t") if "\t" in line else line.split()
        if not line.strip() or cells[0] == _DOCUMENT:
            words.append([])
            labels.append([])
            continue
        words[-1].append(cells[0])
        labels[-1].append(cells[-1].strip())
        if len(cells) < 2 and labelled is not False:
            bare.append(f"line {number} ({line.strip()[:40]!r})")
    if bare:
        raise DataError(f"{str(path)!r}: {count(len(bare), 'line')} have a word and no label: {examples(bare)}")
    rows = [row for row, sentence in enumerate(words) if sentence]
    if not rows:
        raise DataError(f"{str(path)!r} holds no sentence; give a word and its label per line, and an empty line between sentences")
    return Raw([words[row] for row in rows], None if labelled is False else [labels[row] for row in rows], source=repr(str(path)))
