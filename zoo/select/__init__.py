"""Choosing on the data at hand. Nothing here imports torch until a function is called for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.select.audit.check import check_data as check_data
    from zoo.select.comparison.compare import compare as compare
    from zoo.select.crossval.cross_validate import cross_validate as cross_validate
    from zoo.select.merging.greedy_ensemble import ensemble as ensemble
    from zoo.select.merging.soup import soup as soup
    from zoo.select.merging.wise_ft import wise_ft as wise_ft
    from zoo.select.ranking.rank import rank as rank
    from zoo.select.tuning_search.nested import tune_nested as tune_nested
    from zoo.select.tuning_search.tune import tune as tune

_LAZY = {
    "check_data": "zoo.select.audit.check",
    "compare": "zoo.select.comparison.compare",
    "cross_validate": "zoo.select.crossval.cross_validate",
    "ensemble": "zoo.select.merging.greedy_ensemble",
    "rank": "zoo.select.ranking.rank",
    "soup": "zoo.select.merging.soup",
    "tune": "zoo.select.tuning_search.tune",
    "tune_nested": "zoo.select.tuning_search.nested",
    "wise_ft": "zoo.select.merging.wise_ft",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    from zoo.util.missing_attribute import missing_attribute

    raise missing_attribute(__name__, name)


def __dir__() -> list[str]:
    return sorted([*_LAZY, *(name for name in globals() if name.startswith("__"))])
