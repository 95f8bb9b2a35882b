"""Texts that cannot be read: refused with their names, or skipped with a reason in their place."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import zoo
from tests.engine.test_overflow import LONG, prompted
from tests.engine.test_text import model, sentences, tagged
from tests.toy_text import ToyTextPlugin
from tests.toy_tokenizer import ToyTokenizer
from zoo.engine.inference import output_blocks
from zoo.errors import DataError
from zoo.registry.registry import Registry, use_registry


@pytest.fixture(autouse=True)
def texts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tokenizer that refuses texts with half a character, and blocks of four."""
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    monkeypatch.setattr(output_blocks, "ROWS", 4)
    encode, encode_words = ToyTokenizer.encode, ToyTokenizer.encode_words

    def strict(self: Any, texts: Any, max_length: int) -> Any:
        "".join("".join(text) for text in texts).encode()
        return encode(self, texts, max_length)

    def strict_words(self: Any, sentences: Any, max_length: int) -> Any:
        "".join("".join(words) for words in sentences).encode()
        return encode_words(self, sentences, max_length)

    monkeypatch.setattr(ToyTokenizer, "encode", strict)
    monkeypatch.setattr(ToyTokenizer, "encode_words", strict_words)
    yield
    use_registry()


GOOD = [*sentences(9)[0]]
BAD = {1: None, 3: 7, 4: "  ", 8: "half \ud800 a character", 9: float("nan"), 10: ["a", "b", "c"]}
MIXED: list[Any] = [BAD[row] if row in BAD else GOOD.pop() for row in range(12)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_texts_that_cannot_be_read_are_skipped_in_memory_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    net, bad = model(), sorted(BAD)
    good = [text for row, text in enumerate(MIXED) if row not in BAD]
    with pytest.raises(DataError, match=r"6 inputs of 12 cannot be read.*row 1 \(NoneType is no text\), row 3 \(int is no text\)"):
        net.predict(MIXED)
    found = net.embed(MIXED, on_error="skip", batch_size=2)
    assert np.isnan(found).all(1).tolist() == [row in BAD for row in range(12)]
    np.testing.assert_allclose(np.delete(found, bad, 0), net.embed(good, batch_size=2), atol=1e-6)
    assert "6 inputs of 12 cannot be read and have no result: row 1 (NoneType is no text)" in caplog.text
    labels = net.predict(MIXED, on_error="skip")
    assert [row for row, label in enumerate(labels) if label is None] == bad
    with pytest.raises(DataError, match="none of its 2 inputs can be read"):
        net.predict([None, "\udc80"], on_error="skip")


def test_a_text_that_the_tokenizer_refuses_is_named_with_its_row_in_the_whole_table() -> None:
    texts = ["sun"] * 6 + ["half \ud800", "sun", "\ud801 rain"]
    with pytest.raises(DataError, match=r"2 inputs of 9 cannot be read as a text.*row 6 .*lone surrogate.*row 8"):
        model().predict(texts, batch_size=4)
    with pytest.raises(DataError, match=r"row 6 .*lone surrogate.*row 8"):
        model().fit((texts, ["cat", "dog", "cat"] * 3), sentences(8), recipe="linear-probe", epochs=1, quiet=True)


def test_skipped_texts_have_a_row_with_their_reason_in_every_file(tmp_path: Path) -> None:
    net = model(labels=("cat", "dog"))
    frame = pd.DataFrame({"text": pd.Series(MIXED, dtype=object)})
    # A number in a table is text, unlike one in a list.
    bad = sorted(set(BAD) - {3})
    with pytest.raises(DataError, match=r"'text' \(text\) is empty in 3 rows: row 1, row 4, row 9"):
        net.predict(frame)
    for suffix in ("csv", "parquet"):
        done = net.predict_to_file(frame, tmp_path / f"a.{suffix}", on_error="skip", batch_size=2)
        assert done.skipped == len(bad)
    rows = rows_of(tmp_path / "a.csv")
    assert [row for row, one in enumerate(rows) if one["error"]] == [row for row, one in enumerate(rows) if not one["prediction"]] == bad
    assert rows[1]["error"] == "the cell is empty"
    assert "lone surrogate" in rows[8]["error"]
    assert rows[8]["input"] == "row 8"
    assert rows[10]["error"] == "list is no text"
    net.embed_to_file(frame, tmp_path / "a.npz", on_error="skip", batch_size=2)
    with np.load(tmp_path / "a.npz") as saved:
        assert np.isnan(saved["features"]).all(1).tolist() == [row in bad for row in range(12)]
        assert [bool(reason) for reason in saved["errors"]] == [row in bad for row in range(12)]


def test_pairs_and_texts_that_are_too_long_are_skipped_too(tmp_path: Path) -> None:
    net = model()
    pairs = [("sun", "rain"), ("sun", None), ("sun", "rain", "wind"), ["sun", "rain"]]
    assert [label is None for label in net.predict(pairs, on_error="skip")] == [False, True, True, False]
    texts = ["sun", LONG, "rain"]
    assert [label is None for label in net.predict(texts, on_error="skip", overflow="error")] == [False, True, False]
    net.predict_to_file(texts, tmp_path / "a.csv", on_error="skip", overflow="error")
    assert rows_of(tmp_path / "a.csv")[1]["error"] == "has 42 tokens of at most 24"
    windows = net.predict_proba(["\ud800", LONG, "rain"], on_error="skip", overflow="windows")
    np.testing.assert_allclose(windows[1:], net.predict_proba([LONG, "rain"], overflow="windows"), atol=1e-6)
    assert np.isnan(windows[0]).all()


def test_sentences_that_cannot_be_read_have_one_row_without_a_word(tmp_path: Path) -> None:
    net = model("token-classification", 3, labels=("B-Animal", "I-Animal", "O"))
    words, tags = tagged(7)
    mixed: list[Any] = [*words[:2], None, *words[2:4], ["half", "\ud800"], *words[4:]]
    labels = net.predict(mixed, on_error="skip")
    assert [row for row, label in enumerate(labels) if label is None] == [2, 5]
    assert [label for label in labels if label is not None] == net.predict(words)
    done = net.predict_to_file(mixed, tmp_path / "a.parquet", on_error="skip", batch_size=2)
    assert done.skipped == 2
    table = pq.read_table(tmp_path / "a.parquet").to_pydict()
    rows = zip(table["row"], table["word"], table["error"], strict=True)
    assert [(row, word) for row, word, error in rows if error] == [(2, None), (5, None)]
    assert len(table["row"]) == sum(map(len, words)) + 2
    whole, found = net.evaluate((words, tags)), net.evaluate((mixed, [*tags[:2], [], *tags[2:4], ["O", "O"], *tags[4:]]), on_error="skip")
    assert dict(found) == pytest.approx(dict(whole), abs=1e-6)
    assert sum(error is not None for error in found.predictions()["error"]) == 2
    wrong = found.mistakes()
    assert wrong["truth"] != []
    assert all(one != other for one, other in zip(wrong["truth"], wrong["prediction"], strict=True))
    assert sorted(wrong["word"]) == sorted(whole.mistakes()["word"])


def test_an_evaluation_leaves_skipped_texts_out_of_every_metric() -> None:
    net = model(labels=("cat", "dog"))
    texts, labels = sentences(8)
    whole = net.evaluate((texts, labels))
    found = net.evaluate(([*texts, None, "\ud800"], [*labels, "cat", "dog"]), on_error="skip")
    assert dict(found) == pytest.approx(dict(whole), abs=1e-6)
    assert sorted(found.errors) == [8, 9]


def test_the_prompt_is_read_and_the_input_is_written_as_it_was_given(tmp_path: Path) -> None:
    use_registry(Registry(plugins=[zoo.builtin, prompted(prompts={"query": "find "})], files=[]))
    net, texts = model(), ["sun", "rain"]
    net.embed_to_file(texts, tmp_path / "a.npz", prompt_name="query")
    with np.load(tmp_path / "a.npz") as saved:
        assert saved["inputs"].tolist() == texts
        assert np.array_equal(saved["features"], net.embed(["find sun", "find rain"]))
    net.predict_to_file(texts, tmp_path / "a.csv", prompt_name="query")
    assert [row["input"] for row in rows_of(tmp_path / "a.csv")] == texts


def test_cut_texts_are_told_in_one_line_with_their_sum(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = [LONG, "sun", "rain", LONG, "sun", LONG, "rain", "wind", LONG]
    uses: list[Any] = [
        lambda net: net.predict(texts, batch_size=2),
        lambda net: net.predict_to_file(texts, tmp_path / "a.csv", batch_size=2),
        lambda net: net.evaluate((texts, ["cat", "dog", "cat"] * 3), batch_size=2),
    ]
    for use in uses:
        caplog.clear()
        use(model(labels=("cat", "dog")))
        told = [record.getMessage() for record in caplog.records if "cut to" in record.getMessage()]
        assert len(told) == 1
        assert "4 texts of 9 cut to 24 tokens, which loses 43% of their tokens" in told[0]  # 24 of 42
    caplog.clear()
    with caplog.at_level(logging.INFO, "zoo"):
        model().predict(texts, batch_size=2, overflow="windows")
    told = [record.getMessage() for record in caplog.records if "windows" in record.getMessage()]
    assert [line.partition(": ")[2] for line in told] == ["4 texts of 9 are read in windows of 24 tokens, 17 rows in all"]
