"""Files with a word and its label per line: comments, numbered words, CoNLL-U, columns in another order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.data.open import open_data
from zoo.errors import DataError

WORDS = [["EU", "rejects", "#", "calls"], ["Peter", "sleeps"], ["Paris", "EU", "rejects"]]
TAGS = [["B-ORG", "O", "O", "O"], ["B-PER", "O"], ["B-LOC", "B-ORG", "O"]]
Line = Callable[[int, str, str], str]


def write(path: Path, line: Line, before: str = "", first: str = "") -> Path:
    blocks = [
        before + "".join(line(number, word, tag) + "\n" for number, (word, tag) in enumerate(zip(*pair, strict=True), start=1))
        for pair in zip(WORDS, TAGS, strict=True)
    ]
    path.write_text(first + "\n".join(blocks), encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> Any:
    return open_data(path, reads="words", task="token-classification", **options)


@pytest.mark.parametrize(
    ("line", "before", "first"),
    [
        (lambda n, word, tag: f"{word} {tag}", "", ""),
        (lambda n, word, tag: f"{word} {tag} ", "", ""),
        (lambda n, word, tag: f"{word} NN B-NP {tag}", "-DOCSTART- -X- -X- O\n\n", ""),
        (lambda n, word, tag: f"{word} _ _ {tag}", "# id 123 domain=en\n", ""),
        (lambda n, word, tag: f"{word}\t{tag}", "# a comment\n#\n", ""),
        (lambda n, word, tag: f"{n}\t{word}\t{tag}", "#\thttp://x [2009]\n", ""),
        (lambda n, word, tag: f"{n - 1} {word} {tag}", "", ""),
        (lambda n, word, tag: f"{word}\t{tag}", "", "word\ttag\n"),
        (lambda n, word, tag: f"{word}\tNN\t{tag}", "", "Token\tPOS\tTag\n"),
        (lambda n, word, tag: f"{7 * n}\t{word}\t{tag}", "", "id\ttoken\tner\n"),
    ],
)
def test_words_and_labels_are_taken_from_their_columns(line: Line, before: str, first: str, tmp_path: Path) -> None:
    table = read(write(tmp_path / "a.conll", line, before, first))
    assert table.inputs == WORDS
    assert [[table.classes[target] for target in row] for row in table.targets] == TAGS


def test_a_no_break_space_is_part_of_its_word(tmp_path: Path) -> None:
    table = read(write(tmp_path / "a.conll", lambda n, word, tag: f"{word}\u00a0k {tag}"))
    assert table.inputs[1] == ["Peter\u00a0k", "sleeps\u00a0k"]


@pytest.mark.parametrize(
    ("line", "columns"),
    [
        (lambda n, word, tag: f"{tag} {word}", {"words": 1, "label": 0}),
        (lambda n, word, tag: f"{tag} {word}", {"words": "-1", "label": "0"}),
        (lambda n, word, tag: f"{word}\t{tag}\t", {"label": "1"}),
        (lambda n, word, tag: f"{n}\t{word}\t{tag}\tO", {"label": 2}),
    ],
)
def test_columns_are_chosen_by_number(line: Line, columns: dict[str, Any], tmp_path: Path) -> None:
    table = read(write(tmp_path / "a.conll", line), columns=columns)
    assert (table.inputs, table.classes) == (WORDS, ("B-LOC", "B-ORG", "B-PER", "O"))


def test_conllu_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    row: Line = lambda n, word, tag: f"{n}\t{word}\t_\t{tag}\t_\t_\t0\troot\t_\t_"  # noqa: E731  # one line of a table of formats
    file = write(tmp_path / "a.conllu", row, "# text = x\n1-2\tEUs\t_\t_\t_\t_\t_\t_\t_\t_\n")
    with pytest.raises(DataError, match=r"ten columns of CoNLL-U.*--columns words=form,label=upos"):
        read(file)
    table = read(file, columns={"words": "form", "label": "upos"})
    assert (table.inputs, table.classes) == (WORDS, ("B-LOC", "B-ORG", "B-PER", "O"))
    assert read(file, columns={"words": "form"}, labelled=False).inputs == WORDS
    with pytest.raises(DataError, match=r"no column 'upo' \(did you mean 'upos'\?\)"):
        read(file, columns={"words": "form", "label": "upo"})


def test_a_header_names_columns(tmp_path: Path) -> None:
    file = write(tmp_path / "a.conll", lambda n, word, tag: f"{tag} {word}", first="Gold Surface\n")
    assert read(file, columns={"words": "Surface", "label": "Gold"}).inputs == WORDS


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (lambda n, word, tag: f"{tag} {word}", r"4 words with 7 labels.*the label seems to come first.*--columns"),
        (lambda n, word, tag: f"{word}\t{tag}\t", r"last column is empty in 9 lines: line 1, .*columns=\{'label': N\}"),
        (lambda n, word, tag: f"{word} {tag}" if n > 1 else f"{word} x {tag}", r"unlike 3 lines: line 1 \('EU x B-ORG'\)"),
        (lambda n, word, tag: f"{n} {word}", "a word and no label"),
        (lambda n, word, tag: word, "9 lines have a word and no label: line 1"),
    ],
)
def test_columns_that_are_in_doubt_are_refused(line: Line, match: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=match):
        read(write(tmp_path / "a.conll", line))


def test_masked_labels_are_refused() -> None:
    with pytest.raises(DataError, match=r"labels of -100 in 1 sentence of 2: row 1"):
        read(([["a", "b"], ["c"]], [[0, 1], [-100]]))


def test_sentences_of_one_word_are_told(caplog: pytest.LogCaptureFixture) -> None:
    read(([["a"], ["b"], ["c"]], [["X"], ["Y"], ["X"]]))
    assert "each of the 3 sentences has one word" in caplog.text
    caplog.clear()
    read(([["a", "b"], ["b"]], [["X", "X"], ["Y"]]))
    assert not caplog.records
