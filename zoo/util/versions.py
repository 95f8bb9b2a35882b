"""Versions of Python and of installed packages."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

_MODELS = ("torchvision", "timm", "transformers", "peft", "monai", "torchxrayvision")
PACKAGES = ("zoo", "torch", *_MODELS, "safetensors", "huggingface-hub", "accelerate", "numpy", "pillow", "scikit-learn")


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of Python and of installed packages that affect results, including those of ``more``."""
    found = {"python": platform.python_version()}
    for name in dict.fromkeys((*PACKAGES, *more)):
        try:
            found[name] = version(name)
        except (PackageNotFoundError, ValueError):  # an empty name is a ValueError
            continue
    return found
