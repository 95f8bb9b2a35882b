"""Slips of people who work in notebooks: values of a like type are taken, others are named with the remedy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from zoo.data.splits.folds import cross_validation_folds
from zoo.engine.options.resolve import resolve
from zoo.errors import DataError, OptionError, UnknownGroupError, checked_arguments

IMAGES = list(np.zeros((2, 32, 32, 3), np.uint8))


def test_labels_alone_say_how_many_classes_there_are() -> None:
    model = zoo.get("zoo/glyphnet").adapt(labels=np.array(["ants", "bees", "wasps"]))
    assert (model.num_classes, model.labels) == (3, ("ants", "bees", "wasps"))
    assert all(type(label) is str for label in model.labels or ())


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("ab", "labels is 'ab', one text; give the names in the order"),
        ({"ants", "bees"}, "a set, which has no order"),
        ({1: "bees", 0: "ants"}, r"labels is a mapping; .* here perhaps labels=\['ants', 'bees'\]"),
        (3, "labels is 3, no list"),
    ],
)
def test_labels_without_the_order_of_the_outputs_are_refused(labels: Any, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        zoo.get("zoo/glyphnet").adapt(2, labels=labels)


def test_names_in_the_place_of_a_number_are_sent_to_labels() -> None:
    with pytest.raises(OptionError, match="names of classes are labels="):
        zoo.get("zoo/glyphnet").adapt(["ants", "bees"])  # type: ignore[arg-type]  # the slip


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("image_size", "large", "image_size is 'large'; it must be a number of pixels"),
        ("image_size", (32,), "image_size is"),
        ("workers", "two", "workers is 'two'; it must be a whole number, 0 or more"),
        ("workers", -1, "workers is -1"),
        ("device", torch.device("mps"), "device 'mps' is not available"),
    ],
)
def test_a_wrong_option_of_a_prediction_is_named(option: str, value: Any, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        zoo.get("zoo/glyphnet").adapt(2).predict(IMAGES, **{option: value})


def test_numbers_of_numpy_and_devices_of_torch_are_taken() -> None:
    model = zoo.get("zoo/glyphnet").adapt(2)
    assert len(model.predict(IMAGES, image_size=np.int64(16), device=torch.device("cpu"))) == 2
    assert [type(side) for side in zoo.Image(size=np.int64(32)).size] == [int, int]  # type: ignore[arg-type, union-attr]  # of numpy
    assert resolve("linear-probe", {"image_size": np.int64(32)}).image_size == (32, 32)


def test_a_frozen_prefix_of_another_kind_is_refused_with_the_groups() -> None:
    with pytest.raises(UnknownGroupError, match=r"not \['stage2'\]; the groups are: stem, stage1"):
        zoo.get("zoo/glyphnet").adapt(2).freeze(["stage2"])  # type: ignore[arg-type]  # the slip


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ("distill", "objective is the name 'distill'.* zoo.transfer.Distill"),
        (zoo.transfer.Distill, r"objective is the class Distill; give an object of it, such as Distill\(…\)"),
        (zoo.transfer.Contrastive, "objective is the class Contrastive"),
        (3, "objective is int; give a function"),
    ],
)
def test_an_objective_that_is_a_name_or_a_class_is_refused_before_data_are_read(objective: Any, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        zoo.get("zoo/glyphnet").adapt(2).fit("no such folder", objective=objective)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: zoo.Image(sise=32), r"Image has no option 'sise' \(did you mean 'size'\?\)"),  # type: ignore[call-arg]
        (lambda: zoo.wrap(torch.nn.Conv2d(3, 4, 1), input=32), r"zoo.wrap has no option 'input' \(did you mean 'inputs'\?\)"),  # type: ignore[call-arg]
        (lambda: zoo.wrap(torch.nn.Conv2d(3, 4, 1), zoo.Image()), r"too many positional arguments; .*inputs=zoo.Image\(size=…\)"),  # type: ignore[call-arg]
        (lambda: zoo.load("a", device="cpu"), "zoo.load has no option 'device'"),  # type: ignore[call-arg]
        (lambda: zoo.get(None), "zoo.get takes the name of a backbone or a folder, not NoneType"),  # type: ignore[arg-type]
        (lambda: zoo.get("zoo/glyphnet").adapt(2).evaluate(IMAGES, [0, 1]), r"too many positional arguments; .*evaluate\(\(X, y\)\)"),  # type: ignore[call-arg]
        (lambda: zoo.transfer.Distill(), "Distill: missing a required argument: 'teacher'; its arguments are: teacher"),  # type: ignore[call-arg]
        (lambda: zoo.transfer.few_shot("zoo/glyphnet", IMAGES), "missing a required argument: 'query'"),  # type: ignore[call-arg]
        (lambda: zoo.transfer.few_shot("zoo/glyphnet", IMAGES, IMAGES, metod="ridge"), "did you mean 'method'"),
    ],
)
def test_a_call_with_other_arguments_tells_those_there_are(call: Callable[[], Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        call()


def test_an_error_inside_a_function_stays_what_it_is() -> None:
    @checked_arguments("broken()")
    def broken(number: int) -> str:
        return "a" + number  # type: ignore[operator, no-any-return]  # the fault

    with pytest.raises(TypeError, match="can only concatenate"):
        broken(1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"n_epochs": 2, "verbose": 0}, "'n_epochs' here: it is epochs\n.*'verbose' here: it is quiet"),
        ({"loss": "ce"}, "loss is 'ce' .it is called 'cross-entropy' here"),
        ({"loss": "CrossEntropyLoss"}, "it is called 'cross-entropy' here"),
        ({"loss": "focall"}, "did you mean 'focal'"),
    ],
)
def test_words_of_other_libraries_are_told_in_ours(options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        resolve("full", options)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([("a text", "x"), ("another", "y")], r"has no labels; .*of pairs X, y = zip\(\*data\)"),
        ([{"text": "a text", "label": "x"}], r"pandas.DataFrame\(data\) makes a table of dicts"),
        (iter(["a text"]), r"make a list of it, list\(data\)"),
    ],
)
def test_samples_with_their_labels_in_one_list_come_with_the_form_that_is_read(data: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        zoo.open_data(data, reads="text", labelled=True)


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("classification", "it is called 'single-label' here"),
        ("multiclass", "it is called 'single-label' here"),
        ("NER", "it is called 'token-classification' here"),
        ("regresion", "did you mean 'regression'"),
    ],
)
def test_tasks_of_other_libraries_are_told_in_our_words(task: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        zoo.get("zoo/glyphnet").adapt(3, task=task)


def test_what_a_model_does_is_told_where_a_backbone_is_asked_for_it() -> None:
    backbone = zoo.get("zoo/glyphnet")
    with pytest.raises(AttributeError, match=r"a backbone has no head, and so no embed; .*adapt"):
        backbone.embed(IMAGES)
    with pytest.raises(AttributeError, match="'Backbone' object has no attribute 'nothing'"):
        _ = backbone.nothing
    assert copy.copy(backbone).spec is backbone.spec


def test_numbers_of_folds_are_those_of_numpy_too_and_others_are_named() -> None:
    table = zoo.open_data((IMAGES * 3, ["a", "b"] * 3))
    assert len(cross_validation_folds(table, np.int64(2))) == 2
    model = zoo.get("zoo/glyphnet").adapt(2)
    with pytest.raises(OptionError, match="folds is '3'; it must be a whole number"):
        zoo.select.cross_validate(model, table, folds="3")
    with pytest.raises(OptionError, match=r"'n_splits' here: zoo\.select\.cross_validate and zoo cv take folds=3"):
        zoo.select.cross_validate(model, table, n_splits=3)


def test_a_table_shows_its_size_and_not_every_sample() -> None:
    assert repr(zoo.open_data((IMAGES * 3, ["a", "b"] * 3))) == "<Table: 6 samples of the data in memory, 2 classes>"
    assert repr(zoo.open_data(["a text"], reads="text")) == "<Table: 1 sample of the list, unlabelled>"
