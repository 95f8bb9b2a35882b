"""Arguments in the wrong place are refused with the right one, before anything is built or fetched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import zoo
from zoo.errors import OptionError

CLASSES = [".adapt(num_classes=2)"]
WEIGHTS = ["weights=False"]


@pytest.mark.parametrize(
    "name", ["zoo/glyphnet", "resnet50", "torchvision/resnet18", "hf/google-bert/bert-base-uncased", "monai/resnet18-3d"]
)
@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"num_classes": 2}, CLASSES),
        ({"num_labels": 2}, CLASSES),
        ({"pretrained": True}, WEIGHTS),
        ({"num_classes": 2, "pretrained": False}, [*CLASSES, *WEIGHTS]),
    ],
)
def test_get_refuses_what_belongs_elsewhere(name: str, options: dict[str, Any], facts: list[str]) -> None:
    try:
        zoo.get(name)
    except LookupError:
        pytest.skip("its plugin is not installed")
    with pytest.raises(OptionError) as caught:
        zoo.get(name, **options)
    assert all(fact in str(caught.value) for fact in facts), caught.value
    assert all(repr(option) in str(caught.value) for option in options)


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda model: zoo.get("zoo/glyphnet", weights=False).adapt(2, pretrained=True), WEIGHTS),
        (lambda model: zoo.get("zoo/glyphnet", weights=False).adapt(2, num_labels=2), CLASSES),
        (lambda model: model.fit("data", num_classes=2), CLASSES),
        (lambda model: model.fit("data", pretrained=True, lrr=1.0), [*WEIGHTS, "'lr'"]),
        (lambda model: model.plan("data", num_classes=2), CLASSES),
    ],
)
def test_adapt_fit_and_plan_refuse_what_belongs_elsewhere(call: Callable[[zoo.TaskModel], object], facts: list[str]) -> None:
    model = zoo.get("zoo/glyphnet", weights=False).adapt(2)
    with pytest.raises(OptionError) as caught:
        call(model)
    assert all(fact in str(caught.value) for fact in facts), caught.value
    assert "The options are" not in str(caught.value)
