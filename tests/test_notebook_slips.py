"""Slips of people who work in notebooks: values of a like type are taken, others are named with the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import zoo
from zoo.errors import OptionError


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
