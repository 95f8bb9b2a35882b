"""Options of a backbone's builder, and the input and features that follow from them. No torch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from zoo.declare import MAX_CHANNELS, BackboneSpec, Features, Image, Text, Volume
from zoo.errors import OptionError, check_options
from zoo.models.checks.misplaced import remedies
from zoo.plugins.loader import load_function
from zoo.util.numbers import is_whole

_VOLUME_OPTIONS = {"img_size": "size", "spacing": "spacing"}
# Options that leave the width of the features as it is declared, or of which it is known.
WITHOUT_EFFECT_ON_WIDTH = ("img_size", "in_chans", "pooler", "spacing", "drop_rate", "drop_path_rate", "pad_type")
CHANNELS = f"an input has 1 to {MAX_CHANNELS} channels"


def is_channels(value: Any) -> bool:
    """Return whether a value is a possible number of input channels."""
    return is_whole(value) and 1 <= value <= MAX_CHANNELS


def with_options(spec: BackboneSpec, options: Mapping[str, Any]) -> BackboneSpec:
    """Return ``spec`` with build options merged in, and its input adapted to ``img_size`` and ``in_chans``.

    Raises:
        OptionError: If the builder has no such option, or there cannot be so many channels.
    """
    if not options:
        return spec
    _check_build_options(spec, options)
    inputs = spec.inputs
    if isinstance(inputs, Image | Volume) and (options.get("img_size") == 0 or options.get("img_size") is False):
        raise OptionError(f"img_size is {options['img_size']!r}; give the side in {'pixels' if isinstance(inputs, Image) else 'voxels'}")
    if isinstance(inputs, Image) and options.get("img_size"):
        inputs = replace(inputs, size=options["img_size"])
    if isinstance(inputs, Volume):
        inputs = replace(inputs, **{field: options[name] for name, field in _VOLUME_OPTIONS.items() if options.get(name)})
    if isinstance(inputs, Image | Volume) and options.get("in_chans") is not None:
        if not is_channels(options["in_chans"]):
            raise OptionError(f"in_chans is {options['in_chans']!r}; {CHANNELS}")
        chosen = [index % inputs.channels for index in range(options["in_chans"])]
        if options["in_chans"] == 1:
            inputs = replace(inputs, mean=(sum(inputs.mean) / inputs.channels,), std=(sum(inputs.std) / inputs.channels,))
        else:
            inputs = replace(inputs, mean=tuple(inputs.mean[i] for i in chosen), std=tuple(inputs.std[i] for i in chosen))
    return spec.replace(options={**spec.options, **options}, inputs=inputs, features=_features(spec, options))


def has_pooler(spec: BackboneSpec) -> bool:
    """Return whether a backbone has a pooling of its own: whether its builder has an option ``pooler``."""
    return "pooler" in inspect.signature(load_function(spec.build)).parameters


def _features(spec: BackboneSpec, options: Mapping[str, Any]) -> Features:
    """Return the features with or without the option ``pooler``: one vector, or one per token."""
    if options.get("pooler", spec.options.get("pooler")) == spec.options.get("pooler"):
        return spec.features
    text, dim = isinstance(spec.inputs, Text), spec.features.dim
    if options["pooler"]:
        return Features(dim=dim, layout="BD", prefix_tokens=0 if text else spec.features.prefix_tokens)
    return Features(dim=dim, layout="BND", pool="avg", prefix_tokens=1 if text else spec.features.prefix_tokens)


def _check_build_options(spec: BackboneSpec, options: Mapping[str, Any]) -> None:
    """Raise for options that are not in the builder's signature; a builder with ``**options`` checks all but misplaced ones itself."""
    parameters = inspect.signature(load_function(spec.build)).parameters
    told, known = remedies(options), list(parameters)
    checked: Iterable[str] = options
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        checked = [name for name in told if name not in known]
    check_options(checked, known, f"backbone {spec.name!r}", beside=("weights", "allow_partial"), remedies=told)
