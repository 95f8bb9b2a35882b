"""The search space: what the user writes, and what becomes of it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from zoo.engine.options.recipes import RECIPES, default_recipe
from zoo.errors import OptionError
from zoo.select.tuning_search.dimensions import Choice, Range, parse
from zoo.select.tuning_search.space import default_space, narrowed

DEFAULT = default_recipe("single-label")
SPACE = default_space(DEFAULT, modality="image", groups=4, lora=True)


def test_ranges_and_choices_are_read_from_text_and_from_python() -> None:
    assert parse("1e-5..1e-2,log") == Range(1e-5, 1e-2, log=True)
    assert parse("0..4") == Range(0, 4, whole=True)
    assert parse("0.5..1.0") == Range(0.5, 1.0)
    assert parse("8|16|32") == Choice((8, 16, 32))
    assert parse("none|light") == Choice(("none", "light"))
    assert parse((0.1, 0.2)) == Range(0.1, 0.2)
    assert parse([8, 16]) == Choice((8, 16))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is neither a range"),
        ("5", "'5' is neither a range"),
        ("5..1", "the range 5..1 is empty; the lower end comes first"),
        ("0..1,log", "starts at or below 0"),
        ("a..b", "'a..b' is neither a range"),
        ("8|8", "two different values"),
        ("1..2,linear", "is neither a range"),
    ],
)
def test_what_is_neither_is_refused(text: str, told: str) -> None:
    with pytest.raises(OptionError, match=re.escape(told)):
        parse(text)


def test_dimensions_apply_to_the_recipes_that_have_a_use_for_them() -> None:
    assert not any(SPACE.applies(name, RECIPES["linear-probe"]) for name in SPACE.dimensions)
    assert SPACE.applies("lora_rank", RECIPES["lora"])
    assert not SPACE.applies("lora_rank", RECIPES["full"])
    assert not SPACE.applies("layer_decay", RECIPES["lora"])
    assert "lora_rank" not in default_space(DEFAULT, modality="image", groups=4, lora=False).dimensions
    assert "augment" not in default_space(DEFAULT, modality="text", groups=4, lora=False).dimensions


def test_the_point_of_the_default_recipe_gives_its_options() -> None:
    point = SPACE.defaults(16)
    assert point is not None
    recipe, options = SPACE.options(point)
    assert recipe == DEFAULT
    assert options["lr"] == DEFAULT.lr
    assert options["layer_decay"] == DEFAULT.layer_decay
    assert narrowed(SPACE, {"layer_decay": "0.1..0.2"}, only=None, given={}).defaults(16) is None


def test_the_rate_is_relative_to_the_recipe_unless_it_is_searched_itself() -> None:
    _, options = SPACE.options({"recipe": "full", "lr_factor": 2.0})
    assert options == {"lr": 2.0 * RECIPES["full"].lr}
    own = narrowed(SPACE, {"lr": "1e-5..1e-2,log"}, only=None, given={})
    assert "lr_factor" not in own.dimensions
    assert own.options({"recipe": "full", "lr": 1e-3})[1] == {"lr": 1e-3}


def test_given_options_are_not_searched_and_only_keeps_what_it_names() -> None:
    found = narrowed(SPACE, {}, only=None, given={"lr": 1e-3, "batch_size": 8, "recipe": "full"})
    assert not {"lr", "lr_factor", "batch_size", "recipe"} & set(found.dimensions)
    assert set(narrowed(SPACE, {"wise_ft": "0.5..1.0"}, only=["wise_ft", "layer_decay"], given={}).dimensions) == {"wise_ft", "layer_decay"}


def test_all_mistakes_are_told_at_once_with_the_nearest_names() -> None:
    search = {"lr": "5", "layer_decai": "0.5..1.0", "batch_size": "8|16", "recipe": "ful|lora", "lr_factor": "1..2"}
    with pytest.raises(OptionError) as told:
        narrowed(SPACE, search, only=["augmnt"], given={"batch_size": 8})
    text = str(told.value)
    assert "'layer_decai' to search (did you mean 'layer_decay'?)" in text
    assert "lr: '5' is neither" in text
    assert "batch_size is given and searched" in text
    assert "'ful' (did you mean 'full'?)" in text
    assert "'augmnt' (did you mean 'augment'?), which has no range" in text
    with pytest.raises(OptionError, match="everything is given"):
        narrowed(SPACE, {}, only=[], given={})


def test_a_range_is_of_whole_numbers_only_where_the_option_takes_no_others() -> None:
    search: dict[str, Any] = {"dropout": "0..1", "mixup": (0, 1), "freeze": "0..3", "accumulate": (1, 4), "rand_augment": "1..9"}
    search["lr"] = Range(1, 2, whole=True)
    found = narrowed(SPACE, search, only=None, given={}).dimensions
    assert found["dropout"] == Range(0, 1)
    assert found["mixup"] == Range(0, 1)
    assert all(found[name].whole for name in ("freeze", "accumulate", "rand_augment", "lr"))  # type: ignore[union-attr]  # all are ranges
    with pytest.raises(OptionError, match=r"batch_size: it takes whole numbers, and 8\.5\.\.16 has other ends"):
        narrowed(SPACE, {"batch_size": "8.5..16"}, only=None, given={})


def test_a_space_in_which_nothing_has_a_meaning_for_the_recipe_is_refused() -> None:
    probe = default_space(RECIPES["linear-probe"], modality="image", groups=4, lora=True)
    given = {"recipe": "linear-probe"}
    for search in ({}, {"layer_decay": "0.5..0.9"}, {"freeze": "0..2"}, {"lora_rank": [4, 8]}):
        with pytest.raises(OptionError, match="has a meaning for the recipe 'linear-probe'"):
            narrowed(probe, search, only=None, given=given)
    own = narrowed(probe, {"label_smoothing": "0..0.3"}, only=None, given=given)
    assert [name for name in own.dimensions if own.applies(name, own.default)] == ["label_smoothing"]
    assert not narrowed(SPACE, {"lr": "1e-4..1e-2,log"}, only=None, given={}).applies("lr", RECIPES["linear-probe"])


def test_names_as_one_text_are_not_split_into_letters() -> None:
    assert list(narrowed(SPACE, {}, only="layer_decay", given={}).dimensions) == ["layer_decay"]
    assert list(narrowed(SPACE, {}, only="layer_decay, weight_decay", given={}).dimensions) == ["layer_decay", "weight_decay"]


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"recipe": "0..3"}, "recipe: it takes no numbers, and 0..3 is a range; give a choice, such as full|lora"),
        ({"optimizer": (0, 1)}, "optimizer: it takes no numbers"),
        ({"loss": [len, "cross-entropy"]}, "loss: a choice is among texts, numbers, True, False and None, and"),
        ("lr=1e-5..1e-2,log", "search is 'lr=1e-5..1e-2,log'; give a range or a choice by the name of each option"),
    ],
)
def test_searches_of_the_wrong_kind_are_named(search: Any, told: str) -> None:
    with pytest.raises(OptionError, match=re.escape(told)):
        narrowed(SPACE, search, only=None, given={})
