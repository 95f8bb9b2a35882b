"""Building backbones from the configuration and model classes of transformers; nothing is ever fetched or executed from a repository."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo_hf.describe import cleaned
from zoo_hf.families import FAMILIES
from zoo_hf.image_forward import image_class

ATTENTIONS = ("eager", "sdpa")
# What zoo itself decides, and where the user says it.
TAKEN = {
    "num_labels": "the number of classes belongs to the head: adapt(num_classes=…)",
    "id2label": "the names of the classes belong to the head: adapt(labels=…)",
    "trust_remote_code": "code of a repository is never executed",
    "torch_dtype": "values are float32; fit(precision=…) chooses what is computed in",
    "dtype": "values are float32; fit(precision=…) chooses what is computed in",
    "hidden_size": "a backbone declares its width; write a folder with a config.json of its own and give its path",
    "dim": "a backbone declares its width; write a folder with a config.json of its own and give its path",
    "hidden_sizes": "a backbone declares its width; write a folder with a config.json of its own and give its path",
    "embed_dim": "a backbone declares its width; write a folder with a config.json of its own and give its path",
    "num_register_tokens": "a backbone declares its tokens; write a folder with a config.json of its own and give its path",
    "add_pooling_layer": "the backbone's own pooling is chosen with adapt(pool='pooler')",
    "vision_use_head": "the backbone's own pooling is chosen with adapt(pool='pooler')",
}


def text(config: Mapping[str, Any], **options: Any) -> nn.Module:
    """Build a text backbone whose family has no pooling of its own.

    Args:
        config: Configuration of the home library, ``model_type`` among it.
        **options: Fields of the configuration to change, such as ``hidden_dropout_prob``.

    Returns:
        A module that maps ``{"input_ids": (batch, tokens), "attention_mask": …}`` to ``(batch, tokens, dim)``.

    Raises:
        zoo.OptionError: If the configuration has no such field, or the home library refuses a value.
    """
    return _built(_text_class(_class(config)), config, options)


def text_with_pooler(config: Mapping[str, Any], pooler: bool = False, **options: Any) -> nn.Module:
    """Build a text backbone whose family can pool by itself.

    Args:
        config: Configuration of the home library, ``model_type`` among it.
        pooler: Whether the forward returns the backbone's own pooled output ``(batch, dim)``; without it the module has no pooler.
        **options: Fields of the configuration to change.

    Raises:
        zoo.OptionError: If the configuration has no such field, or the home library refuses a value.
    """
    return _built(_text_class(_class(config), pooler), config, options, add_pooling_layer=pooler)


def image(config: Mapping[str, Any], img_size: Any = None, in_chans: int | None = None, **options: Any) -> nn.Module:
    """Build an image backbone; position embeddings are interpolated in the forward for images of another size.

    Args:
        config: Configuration of the home library, ``model_type`` among it.
        img_size: Size of the images in pixels; it changes no tensor, only what the backbone declares.
        in_chans: Number of input channels, where it differs from the configuration's.
        **options: Fields of the configuration to change.

    Raises:
        zoo.OptionError: If the configuration has no such field, or the home library refuses a value.
    """
    return _image(config, FAMILIES[config["model_type"]].pooler == "always", in_chans, options)


def image_with_pooler(
    config: Mapping[str, Any], pooler: bool = False, img_size: Any = None, in_chans: int | None = None, **options: Any
) -> nn.Module:
    """Build an image backbone whose family can pool by itself.

    Args:
        config: Configuration of the home library, ``model_type`` among it.
        pooler: Whether the forward returns the backbone's own pooled output ``(batch, dim)``.
        img_size: Size of the images in pixels; it changes no tensor, only what the backbone declares.
        in_chans: Number of input channels, where it differs from the configuration's.
        **options: Fields of the configuration to change.

    Raises:
        zoo.OptionError: If the configuration has no such field, or the home library refuses a value.
    """
    field = FAMILIES[config["model_type"]].pooler_field
    return _image({**config, field: pooler} if field else config, pooler, in_chans, options)


def _image(config: Mapping[str, Any], pooled: bool, in_chans: int | None, options: Mapping[str, Any]) -> nn.Module:
    given = options if in_chans is None else {**options, "num_channels": in_chans}
    kind = _class(config)
    optional = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return _built(image_class(kind, pooled), config, given, **({"add_pooling_layer": pooled} if optional else {}))


def _built(kind: type[nn.Module], config: Mapping[str, Any], options: Mapping[str, Any], **pooling: bool) -> nn.Module:
    own = _config(config, options)
    try:
        return kind(own, **pooling)
    except (ValueError, TypeError, KeyError, ZeroDivisionError, RuntimeError, AssertionError) as error:
        raise _refusal(config["model_type"], options, error) from error


@cache
def _text_class(kind: Any, pooler: bool = False) -> type[nn.Module]:
    """Return a class of the home library whose forward takes a mapping and returns one tensor; its parameters keep their names."""
    # Tokenizers of some repositories tell more than the architecture reads, such as segments for DistilBERT.
    read = inspect.signature(kind.forward).parameters.keys()

    def forward(self: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        output = kind.forward(self, **{name: value for name, value in batch.items() if name in read}, return_dict=True)
        features: Tensor = output.pooler_output if pooler else output.last_hidden_state
        return features

    return _subclass(kind, forward)


def _subclass(kind: type[nn.Module], forward: Any) -> type[nn.Module]:
    # The module's name stays the home library's, which reads it.
    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _class(config: Mapping[str, Any]) -> Any:
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if config.get("model_type") not in FAMILIES:
        raise zoo.OptionError(f"model_type {config.get('model_type')!r} is none of: {', '.join(sorted(FAMILIES))}")
    return AutoModel._model_mapping[CONFIG_MAPPING[config["model_type"]]]


def _config(config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Return the home library's configuration with options in it."""
    kind = config["model_type"]
    attention = options.get("attn_implementation", "sdpa" if _class(config)._supports_sdpa else "eager")
    _refuse(kind, options, attention)
    values = {**cleaned(config), **FAMILIES[kind].fixed}
    plain = _made(kind, {**values, "attn_implementation": attention}, {})
    given = {key: value for key, value in options.items() if key != "attn_implementation"}
    known = [name for name in {**plain.to_dict(), **values} if not name.startswith("_")]
    unknown = [name for name in given if name not in known]
    if unknown:
        named = ", ".join(f"{name!r}{_nearest(name, known)}" for name in unknown)
        raise zoo.OptionError(f"the configuration of {kind} has no field {named}; it has: {', '.join(sorted(known))}")
    return _made(kind, {**values, **given, "attn_implementation": attention}, given) if given else plain


def _made(kind: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(kind, **{key: value for key, value in values.items() if key != "model_type"})
    except Exception as error:  # its validation raises errors of many libraries
        raise _refusal(kind, given, error) from error


def _refusal(kind: str, given: Mapping[str, Any], error: Exception) -> zoo.OptionError:
    told = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "its own configuration"
    return zoo.OptionError(f"{kind} refuses {told}: {' '.join(str(error).split()) or type(error).__name__}")


def _refuse(kind: str, options: Mapping[str, Any], attention: object) -> None:
    fixed = FAMILIES[kind].fixed
    taken = [f"{name!r}: {TAKEN[name]}" for name in options if name in TAKEN]
    taken += [f"{name!r}: it is {fixed[name]!r} in every backbone of this family" for name in options if name in fixed]
    if attention not in ATTENTIONS:
        taken.append(f"attn_implementation {attention!r}; it can be: {', '.join(ATTENTIONS)}")
    if taken:
        raise zoo.OptionError(f"{kind} cannot be given {'; '.join(taken)}")


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def convert(state_dict: Mapping[str, Tensor], module: Any) -> dict[str, Tensor]:
    """Return published tensors under the module's own names: without the prefix of models with a head, and with today's names.

    Tensors of heads keep their names, which are none of the module's, so they are left out and counted in the log.

    Args:
        state_dict: Tensors as published.
        module: The backbone; its parameters may be without values.
    """
    family = FAMILIES[module.config.model_type]
    own = module.state_dict().keys()
    state: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        name = key.removeprefix("0.").removeprefix("auto_model.")
        name = name.removeprefix(f"{family.prefix}.") if family.prefix else name
        for pattern, replacement in family.names:
            if name in own:
                break
            name = re.sub(pattern, replacement, name)
        if ".weights_in." in name and name not in own:  # DINOv2 giant: two matrices in one
            halves = tensor.chunk(2, dim=0)
            state |= {name.replace("weights_in", half): part for half, part in zip(("gate_proj", "up_proj"), halves, strict=True)}
        else:
            state[name] = tensor
    return state


def parameters(config: Mapping[str, Any], *, pooler: bool) -> int:
    """Count the parameters of a backbone without building any values."""
    return sum(parameter.numel() for parameter in on_meta(config, pooler=pooler).parameters())


def on_meta(config: Mapping[str, Any], *, pooler: bool) -> nn.Module:
    """Build a backbone without values, with its own pooling or, where it can be left out, without."""
    family = FAMILIES[config["model_type"]]
    plain, pooling = (image, image_with_pooler) if family.reads == "image" else (text, text_with_pooler)
    with torch.device("meta"):
        return plain(config) if family.pooler in ("", "always") else pooling(config, pooler)
