"""Rare classes are told before training, in one line each."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.data.table import Table
from zoo.engine.loading.class_counts import warn_of_rare_classes
from zoo.tasks.find import BUILTIN


def table(*numbers: int, source: str = "train") -> Table:
    targets = np.repeat(np.arange(len(numbers)), numbers)
    return Table(list(range(len(targets))), targets, classes=tuple("abcd"[: len(numbers)]), source=source)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_each_kind_of_rare_class_has_one_line(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_rare_classes(BUILTIN["single-label"], table(500, 1, 3, 40), table(9, 0, 1, 1, source="valid"), "balanced")
    found = lines(caplog)
    assert len(found) == 4
    for line, facts in zip(
        found, [("'b'", "single"), ("'c' (3)", "fewer than 5"), ("valid", "'b'"), ("'b'", "500 times", "'a'")], strict=True
    ):
        for fact in facts:
            assert fact in line


def test_plenty_of_samples_need_no_word(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_rare_classes(BUILTIN["single-label"], table(50, 60), table(5, 5), "balanced")
    warn_of_rare_classes(BUILTIN["regression"], Table([1, 2], np.zeros(2, np.float32)), None, None)
    assert lines(caplog) == []


def test_weights_are_proposed_only_where_there_are_none_and_classes_differ(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_rare_classes(BUILTIN["single-label"], table(50, 2), None, None)
    warn_of_rare_classes(BUILTIN["single-label"], table(50, 2), None, "balanced")
    warn_of_rare_classes(BUILTIN["single-label"], table(4, 4), None, None)
    first, second, equal = lines(caplog)
    assert "class_weights='balanced'" in first
    assert "class_weights" not in second
    assert "'a' (4), 'b' (4)" in equal
    assert "count more" not in equal


def test_labels_of_several_classes_are_counted_too(caplog: pytest.LogCaptureFixture) -> None:
    targets = np.zeros((300, 2), np.float32)
    targets[0, 0], targets[:100, 1] = 1, 1
    warn_of_rare_classes(BUILTIN["multi-label"], Table(list(range(300)), targets, classes=("a", "b")), None, "balanced")
    first, second = lines(caplog)
    assert "'a'" in first
    assert "'a' (1 sample)" in second
