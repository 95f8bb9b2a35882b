from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from zoo.data.images.augment import Augment
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.optim.optimizer import check_optimizer
from zoo.engine.options.augment_options import AUGMENT_FIELDS
from zoo.engine.options.begun import as_begun, option_differences
from zoo.engine.options.config import Config, sized_for
from zoo.engine.options.recipe import Phase, Recipe
from zoo.engine.options.recipes import RECIPES, default_recipe
from zoo.engine.options.resolve import TORCH_OPTIMIZERS, resolve
from zoo.errors import OptionError


def test_options_given_win_over_the_recipe_and_none_means_not_given() -> None:
    config = resolve("layer-decay", {"epochs": 7, "lr": None, "image_size": 160})
    assert (config.epochs, config.image_size, config.lr) == (7, (160, 160), config.recipe.lr)


def test_all_mistakes_are_told_at_once_with_their_remedy() -> None:
    with pytest.raises(OptionError) as caught:
        resolve("full", {"label_smothing": 0.1, "lr": -1, "epochs": 0, "augment": {"flpi": 0.5}, "wokers": 2})
    told = str(caught.value)
    for fact in (
        "'label_smothing' (did you mean 'label_smoothing'?)",
        "lr is -1",
        "epochs is 0",
        "'flpi' (did you mean 'flip'?)",
        "'workers'",
    ):
        assert fact in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", 0),
        ("lr", "fast"),
        ("epochs", True),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("warmup", 1.0),
        ("label_smoothing", 1.0),
        ("layer_decay", 0),
        ("seed", -1),
        ("on_corrupt", "ignore"),
        ("class_weights", "equal"),
        ("class_weights", {"a": -1.0}),
        ("image_size", 0),
        ("views", 0),
        ("max_corrupt", 2),
        ("augment", "heavy"),
        ("device", "tpu"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=name):
        resolve("full", {name: value})


def test_what_torch_the_task_or_the_recipe_would_refuse_is_told_with_the_rest() -> None:
    with pytest.raises(OptionError) as caught:
        resolve("full", {"warmup": 7, "optimizer": "sgdd", "monitor": "acuracy", "lora_rank": 4}, check_optimizer=check_optimizer)
    told = str(caught.value)
    for fact in (
        "warmup is 7",
        "'sgdd' (did you mean 'sgd'?)",
        "'acuracy' (did you mean 'accuracy'?)",
        "lora_rank: trains='all' has no such option; take recipe='lora' or recipe='dora'",
    ):
        assert fact in told
    with pytest.raises(OptionError, match="momentun"):
        resolve("full", {"optimizer": "sgd", "optimizer_options": {"momentun": 0.9}}, check_optimizer=check_optimizer)


@pytest.mark.parametrize("option", ["l2_sp", "delta", "bss", "drop_path", "recompute"])
def test_an_option_that_would_change_nothing_is_refused(option: str) -> None:
    with pytest.raises(OptionError, match=f"{option}: the recipe trains nothing of the backbone"):
        resolve("linear-probe", {option: True if option == "recompute" else 0.1})
    resolve("linear-probe", {option: 0})


@pytest.mark.parametrize(
    ("recipe", "options", "remedy"),
    [
        ("linear-probe", {"views": 2}, "augment='light'"),
        ("full", {"views": 2}, "freezes nothing"),
        ("linear-probe", {"views": 2, "augment": "light", "cache": False}, "nothing is cached"),
        ("linear-probe", {"layer_decay": 0.5}, "trains nothing of the backbone"),
        ("linear-probe", {"freeze_bn": True}, "freeze_bn: the recipe trains nothing"),
        ("linear-probe", {"trains": "lora"}, "trains: the recipe trains nothing"),
        ("lora", {"freeze": "all"}, "trains: freeze='all' leaves nothing"),
        ("full", {"freeze": "all", "l2_sp": 0.1}, "l2_sp: freeze='all' leaves nothing"),
        ("full", {"max_corrupt": 0.1}, "on_corrupt='skip'"),
        (Recipe(name="short", phases=(Phase(name="only", steps=3),)), {"epochs": 5}, "length of its own"),
    ],
)
def test_what_nothing_in_the_run_would_use_is_refused(recipe: Any, options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(OptionError, match=remedy):
        resolve(recipe, options)


@pytest.mark.parametrize("weights", [[1, 3], {"ants": -1}, {"ants": "many"}, {"ants": True}, 2, "balancd"])
def test_class_weights_of_a_wrong_kind_say_what_they_must_be(weights: Any) -> None:
    with pytest.raises(OptionError) as caught:
        resolve("full", {"class_weights": weights})
    assert "class_weights is" in str(caught.value)
    assert str(caught.value).count("it must be 'balanced', or a weight above 0 for each class by its name") == 1
    assert resolve("full", {"class_weights": {"ants": 2}}).class_weights == {"ants": 2.0}


@pytest.mark.parametrize("size", [(32,), "32x32", [1, 2, 3], True, {}])
def test_a_size_of_a_wrong_kind_says_what_it_must_be(size: Any) -> None:
    with pytest.raises(OptionError, match=r"image_size is .*; it must be a number of pixels, or two \(height, width\)$"):
        resolve("full", {"image_size": size})
    assert resolve("full", {"image_size": "48"}).image_size == (48, 48)
    passed = InferenceOptions(image_size="48", batch_size="8", workers=" 0 ")  # type: ignore[arg-type]  # what fit takes too
    assert (passed.image_size, passed.batch_size, passed.workers) == (48, 8, 0)
    with pytest.raises(OptionError, match="image_size is 0; it must be at least 1 pixel"):
        resolve("full", {"image_size": 0})


@pytest.mark.parametrize("name", ["shard", "balanced_sampling", "cache", "allow_leak"])
def test_a_word_is_no_switch(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} is 'no'; it must be True or False"):
        resolve("full", {name: "no"})


def test_views_of_what_is_frozen_are_taken() -> None:
    assert resolve("linear-probe", {"views": 2, "augment": "light"}).views == 2
    assert resolve("full", {"views": 2, "freeze": 1}).views == 2


def test_the_list_of_all_options_is_for_names_that_have_no_nearest() -> None:
    for options, listed in (({"epoch": 1}, False), ({"zzzzzz": 1}, True), ({"monitor": "no option"}, False), ({"scale": 1}, False)):
        with pytest.raises(OptionError) as caught:
            resolve("full", options)
        assert ("The options are:" in str(caught.value)) is listed


@pytest.mark.parametrize("name", ["scale", "ratio", "flip", "jitter"])
def test_a_field_of_augment_given_as_an_option_says_where_it_belongs(name: str) -> None:
    with pytest.raises(OptionError, match=f"there is no option '{name}' here: it is a field of augment, augment={{'{name}'"):
        resolve("full", {name: 0.5})


def test_a_window_of_one_number_is_told_its_two() -> None:
    with pytest.raises(OptionError, match=r"window is 40; it must be two numbers \(centre, width\)"):
        resolve("full", {"window": 40})


@pytest.mark.parametrize(
    ("own", "options", "expected"),
    [
        ({"schedule": "one-cycle", "warmup": 0.2}, {}, {"warmup": 0.2}),
        ({"optimizer": "sgd", "weight_decay": 5e-3}, {}, {"weight_decay": 5e-3}),
        ({"optimizer": "sgd", "weight_decay": 5e-3}, {"optimizer": "adam"}, {"weight_decay": 1e-4}),
        ({"optimizer": "sgd", "schedule": "one-cycle"}, {}, {"weight_decay": 1e-4, "warmup": 0.3}),
        ({"warmup": 0.2, "weight_decay": 0.01}, {"optimizer": "sgd", "schedule": "one-cycle"}, {"weight_decay": 1e-4, "warmup": 0.3}),
        ({}, {"optimizer": "sgd", "weight_decay": 0.01}, {"weight_decay": 0.01, "warmup": 0.1}),
    ],
)
def test_what_a_recipe_says_for_its_own_optimizer_and_schedule_stays(
    own: dict[str, Any], options: dict[str, Any], expected: dict[str, float]
) -> None:
    config = resolve(Recipe(name="own", phases=(Phase(name="all"),), **own), options)
    assert {name: getattr(config, name) for name in expected} == expected


def test_the_optimizers_that_are_known_without_torch_are_torchs() -> None:
    from zoo.engine.optim.optimizer import _torch_optimizers

    assert set(TORCH_OPTIMIZERS) == set(_torch_optimizers())


def test_numbers_that_yaml_leaves_as_text_are_read() -> None:
    assert resolve("full", {"lr": "1e-3", "epochs": "4"}).lr == 1e-3


def test_the_fields_of_augment_are_the_data_sides() -> None:
    assert {field.name for field in dataclasses.fields(Augment)} == set(AUGMENT_FIELDS)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"augment": "none"}, None),
        ({"augment": "light"}, {}),
        ({"augment": "none", "mixup": 0}, None),
        ({"augment": "none", "mixup": 0.2}, {"scale": (1, 1), "ratio": (1, 1), "flip": 0, "jitter": 0, "mixup": 0.2}),
        ({"augment": {"flip": 0.0}, "erase": 0.5}, {"flip": 0.0, "erase": 0.5}),
    ],
)
def test_augmentation_is_a_name_or_fields_and_switches_add_to_it(options: dict[str, Any], expected: Any) -> None:
    assert resolve("full", options).augment == expected


@pytest.mark.parametrize(("recipe", "options"), [("linear-probe", {}), ("full", {"augment": "none"})])
def test_mixup_without_augmentation_mixes_and_varies_no_picture(recipe: str, options: dict[str, Any]) -> None:
    found = Augment(**resolve(recipe, {"mixup": 0.2, **options}).augment or {})
    assert found == dataclasses.replace(Augment.none(), mixup=0.2)
    assert not found.augments_images


def test_all_faults_within_an_augmentation_are_told_at_once() -> None:
    wrong = {"scale": 0.5, "ratio": (2, 1), "flip": 1.5, "jitter": "much", "rand_augment": 31, "erase": -1, "flpi": 1}
    with pytest.raises(OptionError) as caught:
        resolve("full", {"augment": wrong, "mixup": -0.1, "cutmix": math.nan, "lr": -1})
    told = str(caught.value)
    facts = [f"augment.{name} is" for name in wrong if name != "flpi"] + ["mixup is -0.1", "cutmix is nan", "lr is -1", "'flip'?"]
    assert [fact for fact in facts if fact not in told] == []


@pytest.mark.parametrize("scale", [(0, 1), (0.5, 1.1), (0.9, 0.5), (0.5,), ("a", 1), True])
def test_the_crop_is_a_rising_pair_of_shares(scale: Any) -> None:
    with pytest.raises(OptionError, match="scale"):
        resolve("full", {"augment": {"scale": scale}})


def test_the_number_of_a_fold_is_read_as_text() -> None:
    assert resolve("full", {"valid_split": 0}).valid_split == "0"


def test_an_augment_value_is_taken_as_it_is() -> None:
    assert resolve("full", {"augment": Augment(flip=0.0)}).augment == dataclasses.asdict(Augment(flip=0.0))


def test_differences_name_what_matters_only() -> None:
    ours, theirs = (resolve("full", {"lr": lr, "workers": workers}).to_dict() for lr, workers in ((1e-3, 0), (2e-3, 4)))
    assert option_differences(ours, theirs) == ["lr was 0.002 and is 0.001"]


def test_an_option_that_is_younger_than_the_run_was_what_it_is_by_itself() -> None:
    older = resolve("full", {}).to_dict()
    del older["ema"], older["optimizer_options"]
    assert option_differences(resolve("full", {}).to_dict(), older) == []
    assert option_differences(resolve("full", {"ema": 0.9}).to_dict(), older) == ["ema was 0.0 and is 0.9"]


def test_a_batch_size_that_nobody_gave_follows_from_the_number_of_samples() -> None:
    assert [sized_for(resolve("full", {}), samples).batch_size for samples in (100, 1000, 5000)] == [8, 16, 32]
    assert sized_for(resolve("full", {"batch_size": 5}), 5000).samples == 5
    automatic = sized_for(resolve("full", {"batch_size": "auto"}), 1000)
    assert (automatic.batch_size, automatic.samples) == ("auto", 16)


@pytest.mark.parametrize("heads", ["trained", "solved"])
def test_a_run_of_an_earlier_version_goes_on_as_it_began(heads: str) -> None:
    today = resolve("layer-decay", {"seed": 3})
    theirs = sized_for(today, 100).to_dict()
    for phase in theirs["recipe"]["phases"]:
        del phase["least_steps"]
        phase["lr"] *= 0.5
    theirs["recipe"]["batch_size"] = theirs["batch_size"] = 32
    if heads == "trained":
        del theirs["solve_head"]
        theirs["epochs"] = 10
        for phase in theirs["recipe"]["phases"]:
            del phase["solve"]
    begun = sized_for(as_begun(today, theirs), 100)
    assert not option_differences(json.loads(json.dumps(begun.to_dict())), json.loads(json.dumps(theirs)))
    assert begun.solve_head == (heads == "solved")
    assert as_begun(today, today.to_dict()) is today
    assert as_begun(resolve("full", {}), theirs).recipe.name == "full"


def test_a_run_keeps_the_monitor_that_it_began_with() -> None:
    today, chosen = resolve("full", {}), resolve("full", {"monitor": "macro_f1"})
    assert as_begun(today, {**today.to_dict(), "monitor": "auroc"}).monitor == "auroc"
    assert as_begun(today, today.to_dict()).monitor is None
    assert as_begun(chosen, {**today.to_dict(), "monitor": "auroc"}).monitor == "macro_f1"
    assert option_differences(chosen.to_dict(), today.to_dict()) == ["monitor was None and is 'macro_f1'"]


def test_a_run_on_words_that_began_with_the_earlier_default_keeps_it() -> None:
    task = "token-classification"
    today = resolve(default_recipe(task), {"warmup": 0.2}, task=task)
    theirs = resolve(dataclasses.replace(RECIPES["full"], lr=1e-4), {"warmup": 0.2}, task=task).to_dict()
    begun = as_begun(today, theirs, task)
    assert (begun.recipe.name, begun.lr, begun.layer_decay, begun.warmup) == ("full", 1e-4, 1.0, 0.2)
    assert option_differences(begun.to_dict(), theirs) == []
    named = resolve("full", {"warmup": 0.2}, task=task)
    assert as_begun(named, theirs, task).lr == named.lr


def test_a_configuration_cannot_be_changed() -> None:
    config: Config = resolve("full", {})
    with pytest.raises(ValueError, match="frozen"):
        config.lr = 1.0  # type: ignore[misc]
