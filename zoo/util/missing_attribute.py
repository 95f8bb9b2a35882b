"""The error of a name that a public module does not have, with the nearest one or the module that has it."""

from __future__ import annotations

import importlib

from zoo.errors import did_you_mean

PUBLIC = ("zoo", "zoo.select", "zoo.transfer")  # modules whose names users type; importing them is light


def missing_attribute(module: str, name: str) -> AttributeError:
    """Return the error of a name that a public module does not have.

    Args:
        module: Name of the module.
        name: The name that was asked for.
    """
    message = f"module {module!r} has no attribute {name!r}"
    if name.startswith("_"):  # asked for by programs, not by people
        return AttributeError(message)
    known = {place: [one for one in dir(importlib.import_module(place)) if not one.startswith("_")] for place in PUBLIC}
    elsewhere = [f"{place}.{name}" for place in PUBLIC if name in known[place]]
    near = f" (it is {elsewhere[0]})" if elsewhere else did_you_mean(name, known[module])
    return AttributeError(message + near)
