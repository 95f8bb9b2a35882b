"""Choices by measurement: of a recipe, of a backbone. Functions are imported at their first use, as they need torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.select.ranking.rank import rank as rank

_LAZY = {"rank": "zoo.select.ranking.rank"}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'zoo.select' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_LAZY)
