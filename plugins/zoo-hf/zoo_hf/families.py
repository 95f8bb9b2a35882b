"""The family of a ``model_type``: a declared one, or one by the generic rule."""

from __future__ import annotations

from zoo_hf.declared_families import declared
from zoo_hf.family import Family


def family_of(model_type: str) -> Family:
    """Return a declared family, or one by the generic rule.

    Raises:
        zoo.ZooError: If there is none, with the reason.
    """
    if family := declared(model_type):
        return family
    from zoo_hf.generic import generic

    return generic(model_type)
