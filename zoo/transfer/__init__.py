"""Methods of transfer learning. Nothing here imports torch until a method is called for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.transfer.domain.adaptation import DomainAdaptation as DomainAdaptation
    from zoo.transfer.domain.source_free import SourceFree as SourceFree
    from zoo.transfer.domain.source_free import adapt_source_free as adapt_source_free
    from zoo.transfer.method import Method as Method

_LAZY = {
    "DomainAdaptation": "zoo.transfer.domain.adaptation",
    "Method": "zoo.transfer.method",
    "SourceFree": "zoo.transfer.domain.source_free",
    "adapt_source_free": "zoo.transfer.domain.source_free",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'zoo.transfer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_LAZY, *(name for name in globals() if name.startswith("__"))])
