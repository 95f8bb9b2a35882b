"""Names of the user's own parts: networks of ``zoo.wrap``, and heads."""

from __future__ import annotations

OWN_PREFIX = "own/"  # of the names of networks
OWN_HEAD = "own"  # name of every head


def is_own(name: str) -> bool:
    """Return whether this is the name of the user's own network, from ``zoo.wrap``."""
    return name.startswith(OWN_PREFIX)
