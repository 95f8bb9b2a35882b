"""Values and lists of names as people type them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.test_docs import run_zoo
from zoo.cli.arguments import settings
from zoo.engine.options.resolve import resolve
from zoo.errors import OptionError
from zoo.select.tuning_search.dimensions import parse
from zoo.util.typed_words import join_names, plain_value, split_names


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("cat,dog", ["cat", "dog"]),
        (" cat , dog ", ["cat", "dog"]),
        ('"cat, small",dog', ["cat, small", "dog"]),
        ('cat, "dog, ""big""", 5" disk', ["cat", 'dog, "big"', '5" disk']),
        ("cat", ["cat"]),
        ('"cat\nsmall",dog', ["cat\nsmall", "dog"]),
        ('"cat\rsmall"', ["cat\rsmall"]),
        ("cat,", ["cat", ""]),
        ("", [""]),
    ],
)
def test_names_are_joined_by_commas_and_quoted_where_they_have_one(words: str, names: list[str]) -> None:
    assert split_names(words) == names
    assert split_names(join_names(names)) == names


def test_an_open_quotation_mark_is_told_with_the_flag_and_the_form() -> None:
    for words in ('"cat, small', '"cat" small,dog'):
        with pytest.raises(OptionError, match=r"""--classes '"cat.* has a quotation mark .*'"A, small",B'"""):
            settings.names(words)
    with pytest.raises(OptionError, match="--columns"):
        settings.columns('"label=kind')


def test_columns_thresholds_and_label_columns_are_quoted_like_classes() -> None:
    assert settings.columns('"label=kind, of animal",file_name=file') == {"label": "kind, of animal", "file_name": "file"}
    assert settings.thresholds('"cat, small=0.3",dog=0.7') == {"cat, small": 0.3, "dog": 0.7}
    config = resolve("linear-probe", {"label_columns": '"cat, small",dog'}, task="multi-label")
    assert config.label_columns == ("cat, small", "dog")
    with pytest.raises(OptionError, match="label_columns is '\"cat'; it must be names with closed quotation marks"):
        resolve("linear-probe", {"label_columns": '"cat'}, task="multi-label")


def test_the_hint_for_names_with_blanks_between_them_quotes_those_with_commas(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = run_zoo(["train", "zoo/glyphnet", "x.csv", "--classes", "cat, small", "dog", "--out", "runs/x"], capsys)
    assert code == 2
    assert """--classes '"cat, small",dog'""" in printed


@pytest.mark.parametrize(
    ("word", "value"),
    [("True", True), ("false", False), (" 3 ", 3), ("1e-3", 1e-3), ("null", None), ("[1, 2]", [1, 2]), (" cat ", "cat"), ("None", "None")],
)
def test_a_setting_and_a_choice_of_a_search_read_one_value_alike(word: str, value: Any) -> None:
    assert plain_value(word) == settings.pairs([f"name={word}"], "--set")["name"] == value
    other = "0.5"
    assert parse(f"{word}|{other}").values == (value, 0.5)  # type: ignore[union-attr]  # a choice
