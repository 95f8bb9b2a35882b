"""Sentences with a label for each word, in the column format of the CoNLL shared tasks (Tjong Kim Sang & De Meulder 2003)."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from zoo.data.raw import Raw
from zoo.errors import LISTED, DataError, check_options, count, did_you_mean, examples

SUFFIXES = (".conll", ".conllu", ".iob", ".iob2", ".bio", ".tsv", ".txt")
HEADERS = {"words", "tokens", "label", "labels", "tags", "ner_tags"}  # column names of tables with a row per sentence
_CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
# Names in the header of a file with a word per line.
_WORD = {"word", "words", "token", "tokens", "form", "text"}
_LABEL = {"tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags", "entity", "pos", "upos", "iob", "bio"}
_INDEX = {"id", "idx", "index", "#"}
_DOCUMENT = "-DOCSTART-"
_FEW = 10  # labels; a tiny trial may have as many of them as words
_PART = re.compile(r"\d+[-.]\d+")  # numbers of words that CoNLL-U writes as one, and of empty ones
_BLANKS = re.compile(r"[ \t]+")  # not the no-break space, which may be within a word

log = logging.getLogger("zoo")
Line = tuple[int, list[str]]


def is_conll(path: Path) -> bool:
    """Return whether a file has a word and its label per line, with empty lines between sentences, and no header of a table."""
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


def read_conll(path: Path, labelled: bool | None, columns: Mapping[str, str] | None = None) -> Raw:
    """Read a file of words: the first column is the word, the last its label, an empty line ends a sentence.

    Comments, a header and a column that counts the words of each sentence are left out. ``columns`` says which columns are ``words``
    and ``label``: numbers from 0, names of the header, or those of CoNLL-U.

    Raises:
        DataError: If the file cannot be read, lines have other columns than the rest, or words and labels cannot be told apart.
    """
    source, columns = repr(str(path)), dict(columns or {})
    check_options(columns, ("words", "label"), "columns=")
    sentences, header = _without_header(_sentences(path), [name for name in columns.values() if not name.lstrip("-").isdigit()])
    if not sentences:
        raise DataError(f"{source} holds no sentence; give a word and its label per line, and an empty line between sentences")
    width = Counter(len(cells) for sentence in sentences for _, cells in sentence).most_common(1)[0][0]
    sentences = _without_comments(sentences, width, source)
    if width == len(_CONLLU) and not header:
        header = _CONLLU
    sentences = [kept for sentence in sentences if (kept := [line for line in sentence if not _is_part(line, header)])]
    _refuse_ragged(sentences, width, source, labelled)
    indexed = _has_index(sentences, width, header)
    word = _place(columns["words"], header, width, source) if "words" in columns else int(indexed)
    label = _place(columns["label"], header, width, source) if "label" in columns else width - 1
    if header == _CONLLU and not ("words" in columns and ("label" in columns or labelled is False)):
        raise DataError(
            f"{source} has the ten columns of CoNLL-U; say which are read: columns={{'words': 'form', 'label': 'upos'}}, on the command "
            f"line --columns words=form,label=upos; the columns: {', '.join(_CONLLU)}"
        )
    words = [[cells[word] for _, cells in sentence] for sentence in sentences]
    if labelled is False:
        return Raw(words, None, source=source)
    if label == word:
        lines = [f"line {number} ({' '.join(cells)[:40]!r})" for sentence in sentences for number, cells in sentence]
        raise DataError(
            f"{source}: {count(len(lines), 'line')} {'has' if len(lines) == 1 else 'have'} a word and no label: {examples(lines)}"
        )
    labels = [[cells[label].strip() for _, cells in sentence] for sentence in sentences]
    _check_labels(sentences, words, labels, source, chosen="label" in columns)
    if width > 2:
        line = "%s: of %d columns, %d holds the words and %d the labels, counted from 0%s; columns={'words': …, 'label': …} names others"
        log.info(line, source, width, word, label, "; column 0 counts the words" if indexed and word != 0 else "")
    return Raw(words, labels, source=source)


def _sentences(path: Path) -> list[list[Line]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} cannot be read as text in UTF-8: {error}") from error
    sentences: list[list[Line]] = [[]]
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        cells = line.split("\t") if "\t" in line else _BLANKS.split(line.strip(" "))
        if not line.strip() or cells[0] == _DOCUMENT:
            sentences.append([])
        else:
            sentences[-1].append((number, cells))
    return [sentence for sentence in sentences if sentence]


def _without_header(sentences: list[list[Line]], wanted: Sequence[str]) -> tuple[list[list[Line]], tuple[str, ...]]:
    """Return the sentences, and the names of the columns if the first line has them, or a wanted one."""
    if not sentences:
        return [], ()
    names = tuple(cell.strip().lower() for cell in sentences[0][0][1])
    first = names[1:] if names[0] in _INDEX and len(names) > 1 else names
    usual = len(first) > 1 and first[0] in _WORD and bool({*first[1:]} & _LABEL)
    if not usual and not {name.lower() for name in wanted} & {*names}:
        return sentences, ()
    rest = [sentences[0][1:], *sentences[1:]]
    return [sentence for sentence in rest if sentence], names


def _without_comments(sentences: list[list[Line]], width: int, source: str) -> list[list[Line]]:
    """Return sentences without the lines before their first word that start with ``#`` and are not a word with one of the labels."""
    labels = {cells[-1] for sentence in sentences for _, cells in sentence if not cells[0].startswith("#")}
    kept, comments = [], 0
    for sentence in sentences:
        start = next((at for at, (_, cells) in enumerate(sentence) if not _is_comment(cells, width, labels)), len(sentence))
        comments += start
        kept.append(sentence[start:])
    if comments:
        log.info("%s: %s left out", source, count(comments, "comment line"))
    return [sentence for sentence in kept if sentence]


def _is_comment(cells: list[str], width: int, labels: Collection[str]) -> bool:
    if not cells[0].startswith("#"):
        return False
    return len(cells) != width or (cells[0] == "#" and width > 1 and cells[-1] not in labels)


def _is_part(line: Line, header: Sequence[str]) -> bool:
    return header == _CONLLU and bool(_PART.fullmatch(line[1][0]))


def _refuse_ragged(sentences: Sequence[Sequence[Line]], width: int, source: str, labelled: bool | None) -> None:
    odd = [(number, cells) for sentence in sentences for number, cells in sentence if len(cells) != width]
    if not odd:
        return
    lines = [f"line {number} ({' '.join(cells)[:40]!r})" for number, cells in odd]
    if labelled is not False and all(len(cells) == 1 for _, cells in odd):
        raise DataError(f"{source}: {count(len(odd), 'line')} {'has' if len(odd) == 1 else 'have'} a word and no label: {examples(lines)}")
    raise DataError(
        f"{source}: most lines have {count(width, 'column')}, unlike {count(len(odd), 'line')}: {examples(lines)}; "
        "separate the columns by one tab each, and leave no tab at the end"
    )


def _has_index(sentences: Sequence[Sequence[Line]], width: int, header: Sequence[str]) -> bool:
    """Return whether the first column counts the words of each sentence."""
    if width < 2 or (header and header[0] in _INDEX):
        return width > 1
    numbers = [[cells[0] for _, cells in sentence] for sentence in sentences]
    if sum(map(len, numbers)) < 2:
        return False
    return any(all(found == [str(start + at) for at in range(len(found))] for found in numbers) for start in (0, 1))


def _place(name: str, header: Sequence[str], width: int, source: str) -> int:
    """Return the number of a column given by number or name."""
    if name.lower() in header:
        return header.index(name.lower())
    if name.lstrip("-").isdigit() and -width <= int(name) < width:
        return int(name) % width
    known = f"the columns are {examples(header, LISTED)}" if header else "the file has no header, so columns are given by number"
    raise DataError(f"{source} has no column {name!r}{did_you_mean(name, header)}; it has {width}, counted from 0, and {known}")


def _check_labels(
    sentences: Sequence[Sequence[Line]], words: Sequence[Sequence[str]], labels: Sequence[Sequence[str]], source: str, *, chosen: bool
) -> None:
    """Check that each word has a label, and that labels are not words: they have fewer values."""
    remedy = "columns={'label': N} names another column, counted from 0 (--columns label=N)"
    empty = [
        f"line {number}"
        for sentence, row in zip(sentences, labels, strict=True)
        for (number, _), tag in zip(sentence, row, strict=True)
        if not tag
    ]
    if empty:
        raise DataError(
            f"{source}: the last column is empty in {count(len(empty), 'line')}: {examples(empty)}; "
            f"remove the tab at the end of the lines, "
            f"or {remedy}"
        )
    tags, forms = {tag for row in labels for tag in row}, {form for row in words for form in row}
    if not chosen and (len(tags) > len(forms) or (len(tags) == len(forms) and len(tags) > _FEW)):
        raise DataError(
            f"{source}: {count(len(forms), 'word')} with {count(len(tags), 'label')}, "
            f"such as {examples(sorted(map(repr, tags)), 3)}; the label "
            "seems to come first, or the last column holds no labels; columns={'words': N, 'label': N} says which are read, counted from 0 "
            "(--columns words=N,label=N)"
        )
