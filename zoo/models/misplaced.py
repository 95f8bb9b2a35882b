"""Arguments of other libraries that many give in the wrong place, and what is meant by them here. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CLASSES = "the classes belong to the head: .adapt(num_classes={!r})"
MISPLACED: Mapping[str, str] = MappingProxyType(
    {
        "num_classes": CLASSES,
        "num_labels": CLASSES,
        "checkpoint_path": "weights=FILE reads a checkpoint",
        "pretrained": "pretrained weights are the default; zoo.get(NAME, weights=False) starts from random values",
    }
)


def remedies(given: Mapping[str, object]) -> dict[str, str]:
    """Return what to do instead of each misplaced argument, with the value that was given."""
    return {name: text.format(given[name]) for name, text in MISPLACED.items() if name in given}
