"""Filters of a search over specs."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from zoo.declare import PERMISSIVE, BackboneSpec, Image
from zoo.errors import OptionError, did_you_mean, examples

FEWEST = 1000  # parameters; a smaller limit means millions


SEARCHED = "name, plugin, family, description, pretraining data or modality"
_SIGNS = str.maketrans("", "", "-_.")  # signs within a word, which people write or leave out: x-ray, resnet_50


def is_glob(pattern: str) -> bool:
    """Return whether a pattern is a glob, not plain words."""
    return any(sign in pattern for sign in "*?[")


def name_matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function from an id to whether a pattern matches it, whatever the case.

    A glob matches the whole id, its part after the source, or its last part; plain words match if the id has each of them, with or
    without the signs ``-``, ``_`` and ``.``.
    """
    if not is_glob(pattern):
        words = _words(pattern)
        return lambda name: _has(name, words)
    match = re.compile(fnmatch.translate(pattern), re.IGNORECASE).match

    def matches(name: str) -> bool:
        rest = name.partition("/")[2]
        return bool(match(name) or match(rest) or ("/" in rest and match(rest.rpartition("/")[2])))

    return matches


def spec_matcher(pattern: str) -> Callable[[BackboneSpec, str], bool] | None:
    """Return a function from a spec and its plugin's distribution to whether both together have each word of a pattern.

    Searched are ``SEARCHED``: the id, the distribution, the base, the description, the repository of the weights, the data that the
    metrics are of, and the modality, which has to be the whole word.

    Returns:
        The function; None for a glob, which is about ids only.
    """
    if is_glob(pattern):
        return None
    words = _words(pattern)

    def matches(spec: BackboneSpec, distribution: str) -> bool:
        text = " ".join(
            [spec.name, distribution, spec.base, spec.description, spec.weights.repo if spec.weights else "", *map(_data, spec.metrics)]
        )
        return _has(text, [word for word in words if word != spec.modality])

    return matches


def _words(pattern: str) -> list[str]:
    return [_plain(word) for word in pattern.split()] or [pattern]


def _plain(text: str) -> str:
    """Return a text in lower case without the signs within its words; one of nothing but signs stays."""
    return text.lower().translate(_SIGNS) or text


def _has(text: str, words: Sequence[str]) -> bool:
    plain = _plain(text)
    return all(word in plain for word in words)


def _data(metric: str) -> str:
    """Return the data that a metric such as ``imagenet-top1`` is of."""
    return metric.partition("-")[0]


def sort_key(by: str) -> Callable[[BackboneSpec], Any]:
    """Return the key of an order: ``name``; ``params`` and ``gmacs``, smallest first; ``accuracy`` and ``size``, largest first.

    Specs without the value come last, and those with equal ones by name.

    Raises:
        OptionError: If there is no such order.
    """
    if by not in ORDERS:
        raise OptionError(f"sort is {by!r}{did_you_mean(by, ORDERS)}; it can be: {', '.join(ORDERS)}")
    return lambda spec: (ORDERS[by](spec), spec.name)


def _largest_first(value: float) -> float:
    return -value if value else 1.0


def _smallest_first(value: float) -> float:
    return value or float("inf")


ORDERS: dict[str, Callable[[BackboneSpec], float]] = {
    "name": lambda spec: 0.0,
    "params": lambda spec: _smallest_first(spec.parameters),
    "gmacs": lambda spec: _smallest_first(spec.macs),
    "accuracy": lambda spec: _largest_first(spec.metrics.get("imagenet-top1", 0.0)),
    "size": lambda spec: _largest_first(spec.inputs.height if isinstance(spec.inputs, Image) else 0),
}


def check_filters(filters: Mapping[str, Any], values: Callable[[str], Iterable[str]], provider: Callable[[str], str]) -> None:
    """Check that backbones with these values exist; all faults at once.

    Args:
        filters: Filters of a search.
        values: Returns the values of ``modality``, ``license`` or ``source`` that listed backbones have; called for an unusual value.
        provider: Returns which plugin would provide a source, or an empty string.

    Raises:
        OptionError: With the nearest value of each.
    """
    faults = []
    for key, extra in (("modality", {"image", "text", "volume"}), ("license", {"permissive", "unknown", *PERMISSIVE}), ("source", set())):
        value = filters.get(key)
        if value is None or value in extra:
            continue
        known = sorted({*extra, *values(key)})
        if value not in known:
            remedy = provider(value) if key == "source" else ""
            remedy = f"{value}/… {remedy}" if remedy else f"there are: {examples(known, 12)}"
            faults.append(f"no backbone has {key} {value!r}{did_you_mean(value, known)}; {remedy}")
    limit, size, macs = filters.get("max_params"), filters.get("image_size"), filters.get("max_gmacs")
    if limit is not None and not limit >= FEWEST:
        hint = f"{limit:g} million are {limit:g}M or {limit:g}e6" if limit > 0 else "give a positive number"
        faults.append(f"max_params is {limit:g}, a number of parameters; {hint}")
    if macs is not None and not macs > 0:
        faults.append(f"max_gmacs is {macs:g}; give a positive number of 10^9 multiply-accumulates")
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
    "max_gmacs": lambda spec, value: 0 < spec.macs <= value,
    "license": lambda spec, value: spec.license in PERMISSIVE if value == "permissive" else spec.license == value,
    "image_size": lambda spec, value: isinstance(spec.inputs, Image) and spec.inputs.height == value,
    "source": lambda spec, value: spec.source == value,
    "pretrained": lambda spec, value: (spec.weights is not None) == value,
}
FILTERS = tuple(_TESTS)
