"""Names of the user's own parts: networks of ``zoo.wrap``, and heads."""

from __future__ import annotations

OWN_PREFIX = "own/"  # of the names of networks
OWN_HEAD = "own"  # name of every head
FUSION = "fusion-of-parts"  # what zoo.transfer.fuse wraps: no network of the user's, and no saved model opens it
FUSION_IS = "the network of a fusion; zoo.transfer.load_fusion opens the folder that Fusion.save (zoo fuse --out) wrote"
HEAD_OF_PART = "it is a part of a fusion, whose own head is not used there, so predictions mean nothing; give the folder above it"


def is_own(name: str) -> bool:
    """Return whether this is the name of the user's own network, from ``zoo.wrap``."""
    return name.startswith(OWN_PREFIX)


def is_fusion(name: str) -> bool:
    """Return whether this is the name of the network of a fusion of images, texts and numbers."""
    return name == OWN_PREFIX + FUSION
