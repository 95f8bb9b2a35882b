"""Sizes are told in the unit in which they have three digits or fewer."""

from __future__ import annotations

import pytest

from zoo.util.numbers import in_units


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1536, "1.54 kB"),
        (999_400, "999 kB"),
        (999_600, "1 MB"),
        (4 * 2**30, "4.29 GB"),
        (24e12, "24 TB"),
        (1.5e15, "1,500 TB"),
        (999.7e12, "1,000 TB"),
    ],
)
def test_a_size_has_three_digits_and_its_unit(size: float, told: str) -> None:
    assert in_units(size) == told
