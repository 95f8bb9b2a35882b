"""Methods of transfer learning. Nothing here imports torch until a method is called for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.transfer.distill import Distill as Distill
    from zoo.transfer.lwf import LearnWithoutForgetting as LearnWithoutForgetting
    from zoo.transfer.method import Method as Method

_LAZY = {
    "Distill": "zoo.transfer.distill",
    "LearnWithoutForgetting": "zoo.transfer.lwf",
    "Method": "zoo.transfer.method",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'zoo.transfer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_LAZY, *(name for name in globals() if name.startswith("__"))])
