"""Support for undeclared model types: layer groups are inferred from module order and verified.

A model fits if it is embeddings, one list of layers, and perhaps a norm behind them. Its groups are read off the order in which
its modules run, in the built model itself, whenever they are bound.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import nn

import zoo
from zoo_hf.declared_families import declared, families, towers
from zoo_hf.family import Family
from zoo_hf.generic_probe import changes_nothing, first_runs, leading_tokens
from zoo_hf.image_inputs import native_size
from zoo_hf.image_processor import PROCESSORS, stem

REMEDY = "declare its layer groups: zoo_hf.register(model_type, zoo_hf.Family(layers=…)), see the README of zoo-hf"


@cache
def generic(model_type: str) -> Family:
    """Return the family of a ``model_type`` that transformers knows, as far as its classes tell.

    Raises:
        zoo.ZooError: If transformers does not know it, or it is not a plain model of texts or images, with the reason.
    """
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise zoo.ZooError(_unknown(model_type))
    if tower := towers().get(model_type):
        raise zoo.ZooError(f"{model_type!r} is the model_type of models of images and texts; its part for images is 'hf/{tower}'")
    try:
        config = CONFIG_MAPPING[model_type]()
        kind: Any = AutoModel._model_mapping[type(config)]
    except Exception as error:  # of many classes: no model, or no default
        raise _refusal(model_type, f"transformers has no plain model of it: {' '.join(str(error).split())}") from error
    if reason := _misfit(config, kind):
        raise _refusal(model_type, reason)
    if kind.main_input_name == "pixel_values":
        return _of_images(model_type, config, kind)
    names = getattr(config, "attribute_map", {})
    return Family(
        layers="zoo_hf.generic:layers",
        pool="avg",
        class_token=False,
        width=names.get("hidden_size", "hidden_size"),
        default_width=config.hidden_size,
        length=names.get("max_position_embeddings", "max_position_embeddings"),
        positions=getattr(config, "max_position_embeddings", None) or 512,
        tokens=None,
    )


def _of_images(model_type: str, config: Any, kind: Any) -> Family:
    """Return a family of images; how many tokens are not patches is what its default size returns, computed without values."""
    try:
        with torch.device("meta"):
            images = torch.zeros(1, int(getattr(config, "num_channels", None) or 3), *native_size(config))
            features = kind(config).eval()(images).last_hidden_state
    except Exception as error:  # of many classes
        raise _refusal(model_type, f"it fails on an image: {' '.join(str(error).split())}") from error
    registers = int(getattr(config, "num_register_tokens", None) or 0)
    extra = leading_tokens(features, config) - registers
    if extra < 0:
        raise _refusal(model_type, "it does not return one vector per patch of an image")
    named = _processor(model_type)
    prepared: dict[str, Any] = {}
    if kind_of_images := PROCESSORS.get(named):
        mean, std = kind_of_images.values
        prepared = {"processor": named, "mean": mean, "std": std, "resample": kind_of_images.resample}
    return Family(
        layers="zoo_hf.generic:layers",
        reads="image",
        pool="avg",
        class_tokens=extra,
        registers=registers,
        default_width=config.hidden_size,
        interpolates="interpolate_pos_encoding" in inspect.signature(kind.forward).parameters,
        tokens=None,
        **prepared,
    )


def _processor(model_type: str) -> str:
    """Return the class of image processors that transformers has for a ``model_type``, without its ``ImageProcessor``; empty for none."""
    from transformers.models.auto import image_processing_auto

    classes: dict[str, str | None] = vars(image_processing_auto)["IMAGE_PROCESSOR_MAPPING_NAMES"].get(model_type) or {}
    return next((stem({"image_processor_type": name}) for name in classes.values() if name), "")


def _misfit(config: Any, kind: Any) -> str:
    """Say why a class of models is none that the rule can use, as far as its signature tells."""
    if isinstance(kind, tuple):
        return "transformers has several models of it"
    read = inspect.signature(kind.forward).parameters
    if config.is_encoder_decoder:
        return "it is an encoder with a decoder"
    if getattr(config, "sub_configs", None):
        taken = " and ".join(sorted(towers()))
        return f"it is made of several models ({', '.join(config.sub_configs)}), whose images' part is taken of {taken} only"
    if kind.main_input_name not in ("input_ids", "pixel_values") or kind.main_input_name not in read:
        return f"it reads {kind.main_input_name if kind.main_input_name in read else 'something else'}, neither tokens nor images"
    if kind.main_input_name == "pixel_values":
        sizes = [name for name in ("hidden_size", "image_size", "patch_size") if not getattr(config, name, None)]
        return f"its configuration tells no {' and no '.join(sizes)}" if sizes else ""
    if "attention_mask" not in read:
        return "it takes no attention mask, so padding would change what a text gives"
    if not isinstance(getattr(config, "hidden_size", None), int):
        return "its configuration tells no hidden_size"
    return ""


def _unknown(model_type: str) -> str:
    from transformers import __version__

    known = {**families(), **towers()}
    return (
        f"the model_type {model_type!r} is none that transformers {__version__} has{zoo.did_you_mean(model_type, known)}; "
        f"zoo-hf has the layer groups of: {', '.join(sorted(known))}, and finds those of other models of texts or "
        "images that transformers has. "
        "Another architecture takes a plugin of a few lines, see docs/write-a-plugin.md"
    )


def _refusal(model_type: str, reason: str) -> zoo.ZooError:
    return zoo.ZooError(f"the model_type {model_type!r} is none that zoo-hf declares, and {reason}; {REMEDY}")


def layers(module: Any) -> dict[str, str | list[str]]:
    """Return the layer groups of a built model, proved by running it on two samples.

    Raises:
        zoo.ZooError: If they cannot be found, or padding or other samples of the batch change a sample's features.
    """
    kind = module.config.model_type
    refuse, family = partial(_refusal, kind), declared(kind) or generic(kind)
    lists = _outermost_lists(module)
    if len(lists) != 1:
        raise refuse(f"it has {len(lists)} lists of layers at its top, not one: {', '.join(lists) or 'none'}")
    inner = [f"{lists[0]}.{name}" for name, _ in module.get_submodule(lists[0]).named_children()]
    beside = list(_beside(module, lists[0]))
    if shared := _shared(module, inner):
        raise refuse(f"its layers share the module {shared}")
    parts = lists[0].split(".")
    ran = first_runs(module, family, [*beside, *inner], [".".join(parts[:depth]) for depth in range(len(parts))], refuse)
    if [name for name in ran if name in inner] != inner:
        raise refuse(f"its layers do not run in the order of {lists[0]}")
    before = [name for name in ran[: ran.index(inner[0])] if name in beside]
    after = ran[ran.index(inner[-1]) + 1 :]
    constant = [name for name in beside if name not in before and not _parameters(module, name)]
    odd = [name for name in beside if name not in (*before, *after, *constant)]
    odd += [name for name in after if name not in constant and "norm" not in type(module.get_submodule(name)).__name__.lower()]
    if odd or not before:
        what = f"{', '.join(odd)} is neither before its layers nor a norm behind them" if odd else "nothing runs before its layers"
        raise refuse(what)
    if idle := [name for name in after if name not in constant and changes_nothing(module, family, name)]:
        raise refuse(f"{', '.join(idle)} changes nothing in its features")
    return {"embeddings": [*before, *constant], "layer": [f"{lists[0]}.*", *(name for name in after if name not in constant)]}


def _outermost_lists(module: nn.Module) -> list[str]:
    lists = [name for name, part in module.named_modules() if isinstance(part, nn.ModuleList) and any(True for _ in part.parameters())]
    return [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]


def _shared(module: nn.Module, names: list[str]) -> str:
    """Return the name of a module that is in two layers, such as one activation for all, or nothing."""
    seen: set[int] = set()
    for name in names:
        here: dict[str, nn.Module] = dict(module.get_submodule(name).named_modules(prefix=name))
        for path, part in here.items():
            if id(part) in seen:
                return path
        seen |= {id(part) for part in here.values()}
    return ""


def _beside(module: nn.Module, path: str) -> Iterator[str]:
    """Yield the outermost modules and tensors that are not on the way to a submodule."""
    parts = path.split(".")
    for depth, part in enumerate(parts):
        prefix = "".join(f"{name}." for name in parts[:depth])
        parent = module.get_submodule(prefix.removesuffix("."))
        tensors = (*parent.named_parameters(recurse=False), *parent.named_buffers(recurse=False))
        yield from (prefix + name for name, _ in tensors)
        for name, child in parent.named_children():
            if name != part and any(True for _ in (*child.parameters(), *child.buffers())):
                yield prefix + name


def _parameters(module: nn.Module, name: str) -> bool:
    path, _, last = name.rpartition(".")
    owner = module.get_submodule(path)
    child = owner._modules.get(last)
    return any(True for _ in child.parameters()) if child is not None else last in owner._parameters
