"""Extras of the distribution: packages that only some uses need."""

from __future__ import annotations

from importlib.util import find_spec

from zoo.errors import MissingExtraError
from zoo.util.versions import DISTRIBUTION

MODULES = {"datasets": ("datasets",), "lora": ("peft",), "plots": ("matplotlib",), "tables": ("pandas", "pyarrow")}
"""The modules of each extra that brings no plugin."""


def require_extra(extra: str, use: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Args:
        extra: Its name.
        use: What needs them, the subject of the message.

    Raises:
        MissingExtraError: Naming the packages and the extra.
    """
    missing = [module for module in MODULES[extra] if find_spec(module) is None]
    if missing:
        raise MissingExtraError(f"{use} needs {' and '.join(missing)}: pip install '{DISTRIBUTION}[{extra}]'")
