"""Declarations of inputs and features: what contradicts itself is one error with the field and the remedy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import zoo
from zoo.errors import DeclarationError

NAN = math.nan
WRONG: list[tuple[type[Any], dict[str, Any], str]] = [
    (zoo.Image, {"mean": (NAN,) * 3}, r"mean is \(nan, nan, nan\); give a list with a finite number per channel"),
    (zoo.Image, {"mean": 0.5}, r"mean is 0\.5; give a list"),
    (zoo.Image, {"mean": (True,) * 3}, "mean is"),
    (zoo.Image, {"mean": (0.5,) * 2}, "mean has 2 channels, std has 3"),
    (zoo.Image, {"mean": (124, 117, 104)}, r"mean is \(124, 117, 104\); pixels are in \[0, 1\], so divide"),
    (zoo.Image, {"mean": (-0.5,) * 3}, r"pixels are in \[0, 1\]"),
    (zoo.Image, {"mean": (0.5,) * 100_000, "std": (0.5,) * 100_000}, "mean has 100000 channels; there are at most 65535"),
    (zoo.Image, {"std": (math.inf,) * 3}, "std is"),
    (zoo.Image, {"std": (0.0,) * 3}, "every value must be positive"),
    (zoo.Image, {"std": None, "size": NAN}, r"(?s)size is nan; give height and width.*std is None"),
    (zoo.Image, {"size": 0}, "at least 1 pixel"),
    (zoo.Image, {"size": 10**9}, "at most 65535 pixels"),
    (zoo.Image, {"size": (8, 8, 8)}, r"size is \(8, 8, 8\); give height and width"),
    (zoo.Image, {"size": (8,)}, r"size is \(8,\); give height and width"),
    (zoo.Image, {"size": 2.5}, r"size is 2\.5; give height and width as whole numbers"),
    (zoo.Image, {"size": True}, "size is True"),
    (zoo.Image, {"crop": "x"}, "crop is 'x'"),
    (zoo.Image, {"window": 5}, "window is 5; give"),
    (zoo.Image, {"window": (NAN, 1)}, r"window is \(nan, 1\); give"),
    (zoo.Volume, {"size": 10**9}, "at most 65535"),
    (zoo.Volume, {"size": "96"}, "size is '96'; give depth, height, width"),
    (zoo.Volume, {"size": (NAN,) * 3}, "size is"),
    (zoo.Volume, {"spacing": (1.0, NAN, 1.0)}, "spacing is .*; give three positive millimetres"),
    (zoo.Volume, {"std": (-1.0,)}, "every value must be positive"),
    (zoo.Features, {"dim": 2.5}, r"dim is 2\.5; it must be a whole number"),
    (zoo.Features, {"dim": "8"}, "dim is '8'"),
]


@pytest.mark.parametrize(("kind", "fields", "words"), WRONG)
def test_a_field_that_cannot_be_is_named_with_what_to_give(kind: type[Any], fields: dict[str, Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words) as caught:
        kind(**fields)
    assert len(str(caught.value)) < 500


def test_numbers_of_numpy_and_lists_are_taken() -> None:
    image = zoo.Image(size=np.int64(32), mean=[np.float32(0.5)], std=np.array([0.25]))  # type: ignore[arg-type]
    assert (image.size, image.mean, image.shape) == ((32, 32), (0.5,), (1, 32, 32))
    assert zoo.Volume(size=8, spacing=2).spacing == (2, 2, 2)
    assert zoo.Volume(mean=(-300.0,), std=(400.0,), spacing=None).spacing is None


def test_bands_that_are_no_picture_have_means_of_their_own_range() -> None:
    assert zoo.Image(mean=(1200.0,) * 7, std=(300.0,) * 7).channels == 7
