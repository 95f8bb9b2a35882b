"""Every timm architecture and pretrained tag as a zoo backbone: ``timm/resnet50``, ``timm/resnet50.a1_in1k``.

Nothing here imports timm or torch: the names come from a catalogue file. Only a name that is not in it asks timm.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import version

import zoo

__version__ = "0.1.0"


@zoo.hookimpl
def zoo_backbones() -> Iterable[zoo.BackboneSpec]:
    """List the catalogue."""
    from zoo_timm.catalogue import backbones

    return backbones()


@zoo.hookimpl
def zoo_find_backbone(name: str) -> zoo.BackboneSpec | None:
    """Ask the installed timm for a name that is newer than the catalogue."""
    if not name.startswith("timm/") or _catalogue_is_complete():
        return None
    from zoo_timm.live import find

    return find(name)


def _catalogue_is_complete() -> bool:
    """Tell whether asking timm, which takes seconds to import, can bring nothing new.

    The installed version is the catalogue's, and nothing imported timm yet, so nobody registered models of their own.
    """
    from zoo_timm.catalogue import table

    return "timm" not in sys.modules and version("timm") == table()["timm"]
