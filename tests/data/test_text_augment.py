"""Augmentation of texts: words are deleted and swapped, as often as asked for, and as (seed, epoch, sample) say."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from tests.toy_text import toy_text_spec
from tests.toy_tokenizer import open_tokenizer
from zoo.data.open import open_data
from zoo.data.table import Table
from zoo.data.texts.augment import AugmentedTexts, TextAugment
from zoo.data.texts.token_ids import fit_lengths
from zoo.declare import Text
from zoo.errors import OptionError

WORDS = [f"word{number}" for number in range(20)]
TEXT = " ".join(WORDS)


def changed(augment: TextAugment, seed: int, text: str = TEXT) -> list[str]:
    found = augment(text, random.Random(seed))
    assert isinstance(found, str)
    return found.split()


def test_deleted_words_leave_the_others_in_order_and_one_at_least() -> None:
    found = [changed(TextAugment(delete=0.1), seed) for seed in range(400)]
    assert all(each == [word for word in WORDS if word in each] for each in found)
    assert 0.085 < 1 - sum(map(len, found)) / (400 * len(WORDS)) < 0.115
    assert {len(changed(TextAugment(delete=0.99), seed)) for seed in range(50)} <= {1, 2, 3}
    assert all(len(changed(TextAugment(delete=0.99), seed, "two words")) >= 1 for seed in range(50))


@pytest.mark.parametrize(("share", "swaps"), [(0.1, 2), (0.01, 1), (0.5, 10)])
def test_swapped_words_are_the_same_ones_in_other_places(share: float, swaps: int) -> None:
    for seed in range(50):
        found = changed(TextAugment(swap=share), seed)
        assert Counter(found) == Counter(WORDS)
        moved = sum(one != other for one, other in zip(found, WORDS, strict=True))
        assert 0 < moved <= 2 * swaps or (swaps > 1 and moved == 0)  # a swap may undo the one before
    assert any(sum(one != other for one, other in zip(changed(TextAugment(swap=share), seed), WORDS, strict=True)) > 1 for seed in range(5))


def test_pairs_are_changed_each_by_itself_and_a_single_word_stays() -> None:
    augment = TextAugment(delete=0.3, swap=0.3)
    first, second = augment((TEXT, "other text of words"), random.Random(0))
    assert set(first.split()) < set(WORDS)
    assert set(second.split()) <= {"other", "text", "of", "words"}
    assert augment("word", random.Random(0)) == "word"
    assert augment("  ", random.Random(0)) == "  "
    assert not TextAugment().changes
    assert augment(TEXT, random.Random(1)) == augment(TEXT, random.Random(1)) != augment(TEXT, random.Random(2))


def test_a_sample_depends_on_the_seed_the_epoch_and_its_row_alone() -> None:
    table = open_data(([TEXT, f"{TEXT} again"], ["a", "b"]), reads="text")
    inputs = toy_text_spec().inputs
    assert isinstance(inputs, Text)
    augment, samples = TextAugment(delete=0.2, swap=0.2), AugmentedTexts(table, inputs, TextAugment(delete=0.2, swap=0.2), seed=7)
    expected = open_tokenizer("").encode([augment(TEXT, random.Random("7/0/0"))], inputs.max_length)[0]
    assert samples[0] == (expected, 0, 0)
    second = samples[1]
    samples.set_epoch(1)
    later = samples[0]
    assert later[0] != expected
    samples.set_epoch(0)
    assert (samples[1], samples[0][0]) == (second, expected)  # in any order
    assert samples.collate([samples[0], samples[1]]).y.tolist() == [0, 1]
    plain = AugmentedTexts(table, inputs, TextAugment())
    assert plain[0][0] == open_tokenizer("").encode([TEXT], inputs.max_length)[0]


def test_words_and_windows_are_not_augmented() -> None:
    inputs = toy_text_spec().inputs
    assert isinstance(inputs, Text)
    words = Table([["two", "words"]], None, (), reads="words")
    windows = fit_lengths(open_data([TEXT * 9], labelled=False, reads="text"), replace(inputs, overflow="windows"))
    for table, told in ((words, "words with a label each"), (windows, "texts in windows")):
        with pytest.raises(OptionError, match=told):
            AugmentedTexts(table, inputs, TextAugment(delete=0.1))


def test_shares_out_of_range_are_told_at_once() -> None:
    with pytest.raises(OptionError, match=r"(?s)delete is 1\.0.*swap is -0\.1"):
        TextAugment(delete=1.0, swap=-0.1)
