"""Building backbones from the configuration and model classes of transformers; nothing is ever fetched or executed from a repository."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo_hf.describe import cleaned
from zoo_hf.families import family_of
from zoo_hf.image_forward import image_class, projected
from zoo_hf.renames import completed, renamed

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
    "image_size": "give img_size",
    "num_channels": "give in_chans",
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
    kind, family = _class(config), family_of(config["model_type"])
    return _built(_text_class(kind, family.inputs), config, options, **_pooling(kind, family.keeps_pooler))


def text_with_pooler(config: Mapping[str, Any], pooler: bool = False, projection: int = 0, **options: Any) -> nn.Module:
    """Build a text backbone whose family can pool by itself.

    Args:
        config: Configuration of the home library, ``model_type`` among it.
        pooler: Whether the forward returns the backbone's own pooled output ``(batch, dim)``; without it the module has no pooler.
        projection: Width of the space of images and texts that the pooled output is projected into; 0 for no projection.
        **options: Fields of the configuration to change.

    Raises:
        zoo.OptionError: If the configuration has no such field, or the home library refuses a value.
    """
    kind, family = _class(config), family_of(config["model_type"])
    module = _built(_text_class(kind, family.inputs, pooler), config, options, **_pooling(kind, pooler or family.keeps_pooler))
    return _with_projection(module, projection, pooler)


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
    return _image(config, family_of(config["model_type"]).pooler == "always", in_chans, options)


def image_with_pooler(
    config: Mapping[str, Any],
    pooler: bool = False,
    img_size: Any = None,
    in_chans: int | None = None,
    *,
    projection: int = 0,
    **options: Any,
) -> nn.Module:
    """Build an image backbone whose family can pool by itself.

    Args:
        config: Configuration of the home library, ``model_type`` among it.
        pooler: Whether the forward returns the backbone's own pooled output ``(batch, dim)``.
        img_size: Size of the images in pixels; it changes no tensor, only what the backbone declares.
        in_chans: Number of input channels, where it differs from the configuration's.
        projection: Width of the space of images and texts that the pooled output is projected into; 0 for no projection.
        **options: Fields of the configuration to change.

    Raises:
        zoo.OptionError: If the configuration has no such field, or the home library refuses a value.
    """
    field = family_of(config["model_type"]).pooler_field
    module = _image({**config, field: pooler} if field else config, pooler, in_chans, options)
    return _with_projection(module, projection, pooler)


def _with_projection(module: Any, width: int, pooler: bool) -> nn.Module:
    """Add the projection of a tower into the space of images and texts, in place.

    Raises:
        zoo.OptionError: If the family has none, or its pooled output is off.
    """
    kind = module.config.model_type
    if width and not family_of(kind).projected:
        raise zoo.OptionError(f"{kind} has no projection into a space of images and texts; leave projection out")
    if width and not pooler:
        raise zoo.OptionError(f"the projection of {kind} takes its pooled output; leave pool out, or give projection=0")
    if width:
        module.projection = nn.Linear(module.config.hidden_size, width, bias=False)
    return module  # type: ignore[no-any-return]  # a module


def _image(config: Mapping[str, Any], pooled: bool, in_chans: int | None, options: Mapping[str, Any]) -> nn.Module:
    own = config if in_chans is None else {**config, "num_channels": in_chans}
    kind = _class(config)
    return _built(image_class(kind, pooled), own, options, **_pooling(kind, pooled))


def _built(kind: type[nn.Module], config: Mapping[str, Any], options: Mapping[str, Any], **pooling: bool) -> nn.Module:
    own = _config(config, options)
    try:
        module = kind(own, **pooling)
    except (ValueError, TypeError, KeyError, ZeroDivisionError, RuntimeError, AssertionError) as error:
        raise _refusal(config["model_type"], options, error) from error
    _make_constants_buffers(module)
    for name in family_of(config["model_type"]).early:
        path, _, last = name.rpartition(".")
        siblings = module.get_submodule(path)._modules
        first = {last: siblings.pop(last), **siblings}
        siblings.clear()
        siblings.update(first)
    return module


def _pooling(kind: Any, wanted: bool) -> dict[str, bool]:
    """Return the argument of a class that adds its own pooling or leaves it out; some have it always, or never."""
    return {"add_pooling_layer": wanted} if "add_pooling_layer" in inspect.signature(kind.__init__).parameters else {}


@cache
def _text_class(kind: Any, inputs: str = "", pooler: bool = False) -> type[nn.Module]:
    """Return a class of the home library whose forward takes a mapping and returns one tensor; its parameters keep their names."""
    # Some tokenizers return inputs the architecture does not accept, such as segments for DistilBERT.
    read = inspect.signature(kind.forward).parameters.keys()
    # A decoder's cache is for writing texts; layers that are computed again for the backward would fill it twice.
    fixed = {"use_cache": False} if "use_cache" in read else {}

    def forward(self: Any, batch: Mapping[str, Tensor]) -> Tensor:
        given = text_inputs(inputs, self.config, batch)
        output = kind.forward(self, **{name: value for name, value in given.items() if name in read}, **fixed, return_dict=True)
        features: Tensor = output.pooler_output if pooler else output.last_hidden_state[:, : batch["input_ids"].shape[1]]
        return projected(self, features)

    return _subclass(kind, forward)


def _make_constants_buffers(module: nn.Module) -> None:
    """Make parameters that never train, such as tables of sines, buffers: unfreezing trains every parameter; in place."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(part, name)
                part.register_buffer(name, parameter.detach())


def text_inputs(inputs: str, config: Any, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the arguments of a backbone's forward by the function that its family names, or the batch where it names none."""
    if not inputs:
        return batch
    module, _, name = inputs.partition(":")
    given: Mapping[str, Tensor] = getattr(importlib.import_module(module), name)(config, batch)
    return given


def _subclass(kind: type[nn.Module], forward: Any) -> type[nn.Module]:
    # The module's name stays the home library's, which reads it.
    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _class(config: Mapping[str, Any]) -> Any:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = str(config.get("model_type"))
    try:
        if own := family_of(kind).kind:
            return getattr(transformers, own)
        auto = getattr(transformers, family_of(kind).auto)
    except zoo.ZooError as error:
        raise zoo.OptionError(str(error)) from error
    try:
        return auto._model_mapping[CONFIG_MAPPING[kind]]
    except KeyError as error:
        raise zoo.OptionError(f"transformers has no model of the model_type {kind!r} that {auto.__name__} could open") from error


def _config(config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Return the home library's configuration with options in it."""
    kind = config["model_type"]
    attention = options.get("attn_implementation", "sdpa" if _class(config)._supports_sdpa else "eager")
    _refuse(kind, options, attention)
    family = family_of(kind)
    values = {**family.defaults, **cleaned(config), **family.preset, **family.fixed}
    plain = _made(kind, {**values, "attn_implementation": attention}, {})
    given = {key: value for key, value in options.items() if key != "attn_implementation"}
    fields = cleaned({**plain.to_dict(), **values}).keys() - {*TAKEN, *family.fixed, "model_type"}
    zoo.check_options(given, {*fields, "attn_implementation", *(("img_size", "in_chans") if family.reads == "image" else ())}, kind)
    return _made(kind, {**values, **given, "attn_implementation": attention}, given) if given else plain


def _made(kind: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(kind, **{key: value for key, value in values.items() if key != "model_type"})
    except Exception as error:  # its validation raises errors of many libraries
        raise _refusal(kind, given, error) from error


def _refusal(kind: str, given: Mapping[str, Any], error: Exception) -> zoo.OptionError:
    told = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "its own configuration"
    reason = " ".join(str(error).split()) or type(error).__name__
    return zoo.OptionError(f"{kind} refuses {told}: {reason}; give a value that its config.json could have")


def _refuse(kind: str, options: Mapping[str, Any], attention: object) -> None:
    fixed = family_of(kind).fixed
    taken = [f"{name!r}: {TAKEN[name]}" for name in options if name in TAKEN]
    taken += [f"{name!r}: it is {fixed[name]!r} in every backbone of this family" for name in options if name in fixed]
    if attention not in ATTENTIONS:
        taken.append(f"attn_implementation {attention!r}; it can be: {', '.join(ATTENTIONS)}")
    if taken:
        raise zoo.OptionError(f"{kind} cannot be given {'; '.join(taken)}")


def convert(state_dict: Mapping[str, Tensor], module: Any) -> dict[str, Tensor]:
    """Return published tensors under the module's own names: without the prefix of models with a head, and with today's names.

    Tensors of heads keep their names, which are none of the module's, so they are left out and counted in the log.

    Args:
        state_dict: Tensors as published.
        module: The backbone; its parameters may be without values.
    """
    family = family_of(module.config.model_type)
    own = module.state_dict().keys()
    state: dict[str, Tensor] = {}
    other: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        name = key.removeprefix("0.").removeprefix("auto_model.").removeprefix(f"{family.prefix or module.base_model_prefix}.")
        for pattern, replacement in family.names:
            if name in own:
                break
            name = re.sub(pattern, replacement, name)
        if ".weights_in." in name and name not in own:  # DINOv2 giant: two matrices in one
            halves = tensor.chunk(2, dim=0)
            state |= {name.replace("weights_in", half): part for half, part in zip(("gate_proj", "up_proj"), halves, strict=True)}
        else:
            (state if name in own else other)[name] = tensor
    return completed({**renamed(other, module), **state}, module)


def parameters(config: Mapping[str, Any], *, pooler: bool) -> int:
    """Count the parameters of a backbone without building any values."""
    return sum(parameter.numel() for parameter in on_meta(config, pooler=pooler).parameters())


def on_meta(config: Mapping[str, Any], *, pooler: bool) -> nn.Module:
    """Build a backbone without values, with its own pooling or, where it can be left out, without."""
    family = family_of(config["model_type"])
    plain, pooling = (image, image_with_pooler) if family.reads == "image" else (text, text_with_pooler)
    with torch.device("meta"):
        return plain(config) if family.pooler in ("", "always") else pooling(config, pooler)
