"""Extras of the distribution: packages that only some uses need."""

from __future__ import annotations

from importlib.util import find_spec

from zoo.errors import MissingExtraError

MODULES = {
    "audit": ("cleanlab",),
    "datasets": ("datasets",),
    "lora": ("peft",),
    "multitask": ("torchjd",),
    "plots": ("matplotlib",),
    "slurm": ("submitit",),
    "tables": ("pandas", "pyarrow"),
    "tune": ("optuna",),
}
"""The modules of each extra that brings no plugin."""


def require_extra(extra: str, use: str) -> None:
    """Check that the packages of an extra are installed, without importing them.

    Args:
        extra: Its name.
        use: What needs them, the subject of the message.

    Raises:
        MissingExtraError: Naming the missing packages and the extra.
    """
    missing = [module for module in MODULES[extra] if find_spec(module) is None]
    if missing:
        # The packages and not the extra, as no package index has this distribution yet.
        raise MissingExtraError(f"{use} needs {' and '.join(missing)}: pip install {' '.join(missing)} (the extra {extra!r})")
