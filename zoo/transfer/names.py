"""The names of the methods, for the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from zoo.errors import OptionError, did_you_mean, fault_list

if TYPE_CHECKING:
    from zoo.transfer.method import Method

# Name to the method that ``zoo.transfer`` exports. No option of a method may have the name of an option of a run.
METHODS: Mapping[str, str] = MappingProxyType(
    {
        "contrastive": "Contrastive",
        "distill": "Distill",
        "domain-adaptation": "DomainAdaptation",
        "fixmatch": "FixMatch",
        "flexmatch": "FlexMatch",
        "flyp": "Flyp",
        "lwf": "LearnWithoutForgetting",
        "maml": "Maml",
        "multi-task": "MultiTask",
    }
)

HEADS: Mapping[str, str] = MappingProxyType({"flyp": "zero-shot"})  # heads that methods need, for commands that name none


def check_name(name: str) -> None:
    """Raise for a name that no method has, without importing torch.

    Raises:
        OptionError: With the nearest name.
    """
    if name not in METHODS:
        raise OptionError(f"there is no objective {name!r}{did_you_mean(name, METHODS)}; they are: {', '.join(METHODS)}")


def option_names(name: str) -> list[str]:
    """Return the options of a method; this imports it."""
    from zoo import transfer

    return [field.name for field in dataclasses.fields(getattr(transfer, METHODS[name])) if field.init]


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """Return a method with its options.

    Args:
        name: A name of ``METHODS``.
        options: Values of its fields.

    Raises:
        OptionError: For an unknown name, and for every unknown, missing or wrong option.
    """
    from zoo import transfer
    from zoo.engine.options.config import OPTIONS

    check_name(name)
    kind = getattr(transfer, METHODS[name])
    fields = [field for field in dataclasses.fields(kind) if field.init]
    known = [field.name for field in fields]
    needed = [field.name for field in fields if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]
    faults = [f"there is no option {key!r}{did_you_mean(key, [*known, *OPTIONS])}" for key in options if key not in known]
    faults += [f"{key} is missing; give --set {key}=VALUE" for key in needed if key not in options]
    if faults:
        raise OptionError(fault_list(f"the objective {name!r} cannot be made", faults, f"Its options are: {', '.join(known) or 'none'}"))
    made: Method = kind(**options)
    return made
