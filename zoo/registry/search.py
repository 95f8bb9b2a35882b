"""Filters of a search over specs."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zoo.declare import PERMISSIVE, BackboneSpec, Image
from zoo.errors import OptionError, did_you_mean, examples


def glob_matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function from an id to whether a glob matches it, its part after the source, or its last part."""
    match = re.compile(fnmatch.translate(pattern)).match
    return lambda name: bool(match(name) or match(name.partition("/")[2]) or match(name.rpartition("/")[2]))


def check_filters(filters: Mapping[str, Any], specs: Sequence[BackboneSpec], provider: Callable[[str], str]) -> None:
    """Check that backbones with these values exist; all faults at once.

    Args:
        filters: Filters of a search.
        specs: Every listed spec.
        provider: Returns which plugin would provide a source, or an empty string.

    Raises:
        OptionError: With the nearest value of each.
    """
    faults = []
    for key, extra in (("modality", {"image", "text", "volume"}), ("license", {"permissive", "unknown", *PERMISSIVE}), ("source", set())):
        value = filters.get(key)
        known = sorted({*extra, *(getattr(spec, key) for spec in specs)}) if value is not None else []
        if value is not None and value not in known:
            remedy = provider(value) if key == "source" else ""
            remedy = f"{value}/… {remedy}" if remedy else f"there are: {examples(known, 12)}"
            faults.append(f"no backbone has {key} {value!r}{did_you_mean(value, known)}; {remedy}")
    limit, size = filters.get("max_params"), filters.get("image_size")
    if limit is not None and not limit > 0:
        faults.append(f"max_params is {limit}; give a positive number of parameters")
    if size is not None and size < 1:
        faults.append(f"image_size is {size}; give a height of at least 1 pixel")
    if faults:
        raise OptionError("; ".join(faults))


def passes(spec: BackboneSpec, filters: Mapping[str, Any]) -> bool:
    """Return whether a spec passes every filter."""
    return all(_TESTS[key](spec, value) for key, value in filters.items())


_TESTS: dict[str, Callable[[BackboneSpec, Any], bool]] = {
    "modality": lambda spec, value: spec.modality == value,
    "max_params": lambda spec, value: 0 < spec.parameters <= value,
    "license": lambda spec, value: spec.license in PERMISSIVE if value == "permissive" else spec.license == value,
    "image_size": lambda spec, value: isinstance(spec.inputs, Image) and spec.inputs.height == value,
    "source": lambda spec, value: spec.source == value,
    "pretrained": lambda spec, value: (spec.weights is not None) == value,
}
FILTERS = tuple(_TESTS)
