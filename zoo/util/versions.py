"""Versions of Python and of installed packages."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from zoo.util.process_caches import CACHES

DISTRIBUTION = "transfer-zoo"
"""The distribution that the package ``zoo`` comes in; the name ``zoo`` is another project's on the package index."""

_MODELS = ("torchvision", "timm", "transformers", "peft", "monai", "torchxrayvision")
PACKAGES = ("torch", *_MODELS, "safetensors", "huggingface-hub", "accelerate", "numpy", "pillow", "scikit-learn")


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of Python and of installed packages that affect results, including those of ``more``; ``zoo`` is this library."""
    found = {"python": platform.python_version()}
    for name in dict.fromkeys((DISTRIBUTION, *PACKAGES, *more)):
        if number := _version(name):
            found["zoo" if name == DISTRIBUTION else name] = number
    return found


def how_to_install(plugin: str) -> str:
    """Return how a plugin of this repository is installed: from a clone, as long as no package index has it."""
    return f"pip install ./plugins/{plugin} in a clone of zoo"


def _version(name: str) -> str:
    """Return the version of an installed package, empty if it is not installed; reading its metadata takes milliseconds."""
    known: dict[str, str] = CACHES.get("versions", dict)
    if name not in known:
        try:
            known[name] = version(name)
        except (PackageNotFoundError, ValueError):  # an empty name is a ValueError
            known[name] = ""
    return known[name]
