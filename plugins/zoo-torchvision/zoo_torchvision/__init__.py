"""Every image classifier of torchvision as a zoo backbone: ``torchvision/resnet50``, ``torchvision/resnet50.imagenet1k_v1``.

Nothing here imports torchvision or torch: the names come from a catalogue file.
"""

from __future__ import annotations

from collections.abc import Iterable

import zoo

__version__ = "0.1.0"


@zoo.hookimpl
def zoo_backbones() -> Iterable[zoo.BackboneSpec]:
    """List the catalogue."""
    from zoo_torchvision.catalogue import backbones

    return backbones()
