"""Encoders and language models of transformers as zoo backbones: any Hub repository or local folder of many families of texts and images.

Nothing here imports transformers or torch: well-known repositories are listed from a data file, and another repository is
described by its config.json.
"""

from __future__ import annotations

from collections.abc import Iterable

import zoo
from zoo_hf.declared_families import register as register
from zoo_hf.family import Family as Family
from zoo_hf.family import Home as Home

__version__ = "0.1.0"


@zoo.hookimpl
def zoo_backbones() -> Iterable[zoo.BackboneSpec]:
    """List the well-known repositories."""
    from zoo_hf.catalogue import backbones

    return backbones()


@zoo.hookimpl
def zoo_find_backbone(name: str) -> zoo.BackboneSpec | None:
    """Describe ``hf/owner/repository``, ``hf/owner/repository@revision``, ``hf/FAMILY`` or a local folder."""
    from zoo_hf.find import find

    return find(name)
