"""What a frozen prefix gave is used by the next run that asks for the same, and by no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from tests.engine.tiny import SAVED, count_samples, difference, images, model, values
from zoo.data.open import open_data
from zoo.data.texts.tokenizers import open_tokenizer
from zoo.engine.cache.feature_memo import FeatureMemo, table_key
from zoo.engine.options.recipe import Phase, Recipe
from zoo.util.process_caches import CACHES, ProcessCaches

TOP = Recipe(name="last", phases=(Phase(name="last", frozen=-1, augment=False),), epochs=2, batch_size=8, augment="none")
PROBE = Recipe(name="probe", phases=(Phase(name="probe", frozen="all"),), epochs=2, batch_size=8, augment="none")


def computed(out: Path, recipe: Recipe = TOP, *, change: Any = None, data: Any = None, **options: Any) -> tuple[int, Any]:
    """Train once; return how many samples went through the stem, and the model."""
    net = model()
    if change:
        change(net)
    seen = count_samples(net.backbone.get_submodule("conv1"))
    net.fit(*(data or (images(24), images(12, seed=1))), out=out, recipe=recipe, quiet=True, **options)
    return seen[0] - SAVED, net


@pytest.mark.parametrize("recipe", [TOP, PROBE], ids=["entered", "pooled"])
def test_a_second_run_computes_the_frozen_prefix_of_no_sample_and_ends_with_the_same_bits(recipe: Recipe, tmp_path: Path) -> None:
    first, one = computed(tmp_path / "1", recipe)
    second, two = computed(tmp_path / "2", recipe)
    assert first >= 36
    assert second <= 16, "only the trial of the boundary is left"
    assert difference(values(one), values(two)) == 0.0
    third, _ = computed(tmp_path / "3", recipe, lr=0.02, seed=3)
    assert third <= 16
    CACHES.clear()
    fourth, four = computed(tmp_path / "4", recipe)
    assert fourth == first, "after the caches were cleared all of it is computed again"
    assert difference(values(one), values(four)) == 0.0


def shift(net: Any) -> None:
    with torch.no_grad():
        net.backbone.bn1.running_mean[0] += 1e-3


@pytest.mark.parametrize(
    "other",
    [
        {"change": shift},
        {"data": (images(24, seed=5), images(12, seed=6))},
        {"image_size": 32},
        {"batch_size": 4},
        {"recipe": Recipe(name="more", phases=(Phase(name="more", frozen=1),), epochs=1, batch_size=8, augment="none")},
    ],
    ids=["values", "data", "input", "batches", "prefix"],
)
def test_whatever_the_values_depend_on_makes_another_key(other: dict[str, Any], tmp_path: Path) -> None:
    computed(tmp_path / "1")
    again, _ = computed(tmp_path / "2", **({"recipe": TOP} | other))
    assert again >= 36


def norms_otherwise(net: Any) -> None:
    net.backbone.bn1.eps = 10.0


def hooks(net: Any) -> None:
    net.backbone.conv1.register_forward_hook(lambda _module, _args, output: output + 1)


def pools_otherwise(net: Any) -> None:
    net.head.pool.kind = "max"


@pytest.mark.parametrize("change", [norms_otherwise, hooks, pools_otherwise], ids=lambda change: change.__name__)
@pytest.mark.parametrize("recipe", [TOP, PROBE], ids=["entered", "pooled"])
def test_modules_that_are_set_otherwise_are_not_taken_for_the_same(change: Any, recipe: Recipe, tmp_path: Path) -> None:
    computed(tmp_path / "1", recipe)
    again, _ = computed(tmp_path / "2", recipe, change=change)
    assert again >= 36


def test_views_depend_on_the_seed_and_the_augmentation(tmp_path: Path) -> None:
    recipe = Recipe(name="views", phases=(Phase(name="views", frozen="all"),), epochs=2, batch_size=8)
    first, _ = computed(tmp_path / "1", recipe, views=2)
    same, _ = computed(tmp_path / "2", recipe, views=2)
    seed, _ = computed(tmp_path / "3", recipe, views=2, seed=1)
    assert (first, same, seed) == (24 + 24 + 12, 0, 24)  # the samples as they are do not depend on it


def test_a_file_that_changed_and_what_cannot_be_told_apart_have_no_part_in_it(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.txt" for number in range(3)]
    for path in paths:
        path.write_text("a")
    table = open_data((paths, [0, 1, 0]))
    before = table_key(table)
    assert before
    assert before == table_key(table)
    paths[1].write_text("changed")
    assert table_key(table) != before

    class Lazy:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return np.zeros((4, 4, 3))

    from zoo.data.table import Table

    assert table_key(Table(Lazy(), None)) == ""  # type: ignore[arg-type]  # a sequence by what it can do
    assert table_key(Table([np.zeros(3)], None)) == ""


def test_the_shelf_forgets_what_was_unused_longest_and_takes_nothing_too_large() -> None:
    shelf = FeatureMemo(limit=10)
    for name in ("a", "b"):
        shelf.put(name, name, 4)
    assert shelf.get("a") == "a"
    shelf.put("c", "c", 4)
    assert [shelf.get(name) for name in ("a", "b", "c")] == ["a", None, "c"]
    shelf.put("d", "d", 11)
    shelf.put("", "e", 1)
    assert shelf.get("d") is None
    assert shelf.get("") is None


def test_a_cache_is_one_object_until_all_are_cleared() -> None:
    caches = ProcessCaches()
    first = caches.get("first", list)
    first.append("a value")
    assert caches.get("first", list) is first
    assert caches.get("second", list) == []
    caches.clear()
    assert caches.get("first", list) == []


def test_a_tokenizer_is_opened_once_until_the_caches_are_cleared() -> None:
    declared = zoo.Text(tokenizer="tests.toy_tokenizer:open_tokenizer", max_length=8)
    first = open_tokenizer(declared)
    assert open_tokenizer(declared) is first
    CACHES.clear()
    assert open_tokenizer(declared) is not first
