"""Medical backbones: ``xrv/…``, the chest X-ray networks of torchxrayvision, and ``monai/…``, three-dimensional ones of MONAI.

Nothing here imports torch, MONAI or torchxrayvision.
"""

from __future__ import annotations

from collections.abc import Iterable

import zoo

__version__ = "0.1.0"


@zoo.hookimpl
def zoo_backbones() -> Iterable[zoo.BackboneSpec]:
    """List all networks."""
    from zoo_medical import volumes, xrays

    return [*xrays.specs(), *volumes.specs()]
