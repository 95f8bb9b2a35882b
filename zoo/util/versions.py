"""Versions of Python and of installed packages."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from zoo.util.process_caches import CACHES

_MODELS = ("torchvision", "timm", "transformers", "peft", "monai", "torchxrayvision")
PACKAGES = ("zoo", "torch", *_MODELS, "safetensors", "huggingface-hub", "accelerate", "numpy", "pillow", "scikit-learn")


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of Python and of installed packages that affect results, including those of ``more``."""
    found = {"python": platform.python_version()}
    for name in dict.fromkeys((*PACKAGES, *more)):
        if number := _version(name):
            found[name] = number
    return found


def _version(name: str) -> str:
    """Return the version of an installed package, empty if it is not installed; reading its metadata takes milliseconds."""
    known: dict[str, str] = CACHES.get("versions", dict)
    if name not in known:
        try:
            known[name] = version(name)
        except (PackageNotFoundError, ValueError):  # an empty name is a ValueError
            known[name] = ""
    return known[name]
