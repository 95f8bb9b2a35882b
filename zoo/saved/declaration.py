"""The declaration of a saved model's backbone: the plugin's, with the options and preprocessing that its folder records."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.declare import BackboneSpec, Features, Inputs, Text, Weights, from_fields
from zoo.errors import OptionError, SavedModelError, examples
from zoo.models.build_options import with_options
from zoo.plugins.loader import load_function
from zoo.registry.registry import default_registry
from zoo.saved.config import TEXT_FIELDS, Config


def spec_of(folder: Path, config: Config) -> BackboneSpec:
    """Return the declaration of the saved model's backbone, with its own options and preprocessing.

    Raises:
        SavedModelError: If no plugin declares the backbone, or config.json contradicts its declaration.
        DeclarationError: If fields of the input or the features are wrong.
    """
    try:
        spec = default_registry().resolve(config.zoo.backbone).spec
    except LookupError as error:
        needs = f"{config.zoo.backbone!r}, which {config.zoo.plugin or 'a plugin'} had"
        raise SavedModelError(f"{str(folder)!r} needs the backbone {needs}: {error}") from error
    where = str(folder / "config.json")
    inputs = inputs_of(folder, config, spec)
    weights = Weights(file=str(folder / "model.safetensors"), license=config.zoo.license)
    changed = {key: value for key, value in config.zoo.options.items() if spec.options.get(key) != value}
    if config.zoo.base != config.zoo.backbone:  # a member of an open family has a configuration of its own
        _refuse_other_architecture(spec, changed, where)
    try:
        spec = with_options(spec, changed)
    except (TypeError, OptionError) as error:
        raise SavedModelError(f"{where!r}: zoo.options {changed} are not those of {spec.name} ({error}): the file was changed") from error
    features = from_fields(Features, config.zoo.features, where) if config.zoo.features else spec.features
    if config.zoo.base == config.zoo.backbone:  # a member of an open family has its own name
        spec = spec.replace(name=config.base_model, base=config.zoo.backbone)
    return spec.replace(inputs=inputs, features=features, weights=weights, pair=None)  # the folder holds one tower


def _refuse_other_architecture(spec: BackboneSpec, changed: Mapping[str, Any], where: str) -> None:
    """Check that a file changes no option that the builder requires and the declaration gives: these say which network it is."""
    parameters = inspect.signature(load_function(spec.build)).parameters
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    if odd := sorted(required & changed.keys() & spec.options.keys()):
        given = examples([f"{name}={changed[name]!r}" for name in odd])
        raise SavedModelError(f"{where!r} gives {given} for {spec.name}, whose declaration decides that: the file was changed")


def inputs_of(folder: Path, config: Config, spec: BackboneSpec) -> Inputs:
    """Return the saved input; the function of a tokenizer is that of the plugin, as a file must not name code.

    Raises:
        SavedModelError: If its kind is not that of the backbone, or it has fields that a file must not set.
        DeclarationError: If a field is wrong.
    """
    where = str(folder / "config.json")
    if config.zoo.modality != spec.modality:
        raise SavedModelError(
            f"{where!r} says that {spec.name} reads {config.zoo.modality}; it reads {spec.modality}: the file was changed"
        )
    if not isinstance(spec.inputs, Text):
        inputs: Inputs = from_fields(type(spec.inputs), config.zoo.inputs, where)
        return inputs
    if odd := sorted(config.zoo.inputs.keys() - set(TEXT_FIELDS)):
        raise SavedModelError(f"{where!r} gives {', '.join(odd)} of a text; only {', '.join(TEXT_FIELDS)} are read from there")
    tokenizer = {"tokenizer": spec.inputs.tokenizer, "files": str(folder.resolve())}
    inputs = from_fields(Text, {"max_length": spec.inputs.max_length, **config.zoo.inputs, **tokenizer}, where)
    return inputs


def root_of(spec: BackboneSpec) -> BackboneSpec:
    """Return the spec at the root of the derivations of another, which a plugin declares."""
    while spec.base:
        spec = default_registry().resolve(spec.base).spec
    return spec
