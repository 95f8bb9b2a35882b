"""Families that nobody declared: any text model of transformers whose layer groups can be found and proved.

A model fits if it is embeddings, one list of layers, and perhaps a norm behind them. Its groups are read off the order in which
its modules run, in the built model itself, whenever they are bound.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo_hf.families import families, towers
from zoo_hf.family import Family

TOKENS = 8  # of the texts that are run to prove the groups
REMEDY = "declare its layer groups: zoo_hf.register(model_type, zoo_hf.Family(layers=…)), see the README of zoo-hf"


@cache
def generic(model_type: str) -> Family:
    """Return the family of a ``model_type`` that transformers knows, as far as its classes tell.

    Raises:
        zoo.ZooError: If transformers does not know it, or it is no encoder or decoder of texts, with the reason.
    """
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise zoo.ZooError(_unknown(model_type))
    if tower := towers().get(model_type):
        raise zoo.ZooError(f"{model_type!r} is the model_type of models of images and texts; its part for images is 'hf/{tower}'")
    try:
        config = CONFIG_MAPPING[model_type]()
        kind = AutoModel._model_mapping[type(config)]
    except Exception as error:  # of many classes: no model, or no default
        raise _refusal(model_type, f"transformers has no plain model of it: {' '.join(str(error).split())}") from error
    if reason := _misfit(config, kind):
        raise _refusal(model_type, reason)
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


def _misfit(config: Any, kind: Any) -> str:
    """Say why a class of models is none that the rule can use, as far as its signature tells."""
    if isinstance(kind, tuple):
        return "transformers has several models of it"
    read = inspect.signature(kind.forward).parameters
    if config.is_encoder_decoder:
        return "it is an encoder with a decoder"
    if getattr(config, "sub_configs", None):
        taken = " and ".join(towers())
        return f"it is made of several models ({', '.join(config.sub_configs)}), whose images' part is taken of {taken} only"
    if kind.main_input_name != "input_ids" or "input_ids" not in read:
        return f"it reads {kind.main_input_name if kind.main_input_name in read else 'something else'}, not tokens"
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
        f"zoo-hf has the layer groups of: {', '.join(sorted(known))}, and finds those of other models of texts that transformers has. "
        "Another architecture takes a plugin of a few lines, see docs/write-a-plugin.md"
    )


def _refusal(model_type: str, reason: str) -> zoo.ZooError:
    return zoo.ZooError(f"the model_type {model_type!r} is none that zoo-hf declares, and {reason}; {REMEDY}")


def layers(module: Any) -> dict[str, str | list[str]]:
    """Return the layer groups of a built model, proved by running it on two short texts.

    Raises:
        zoo.ZooError: If they cannot be found, or padding changes what a text gives.
    """
    refuse = partial(_refusal, module.config.model_type)
    lists = _outermost_lists(module)
    if len(lists) != 1:
        raise refuse(f"it has {len(lists)} lists of layers at its top, not one: {', '.join(lists) or 'none'}")
    inner = [f"{lists[0]}.{name}" for name, _ in module.get_submodule(lists[0]).named_children()]
    beside = list(_beside(module, lists[0]))
    if shared := _shared(module, inner):
        raise refuse(f"its layers share the module {shared}")
    parts = lists[0].split(".")
    ran = _order(module, [*beside, *inner], [".".join(parts[:depth]) for depth in range(len(parts))])
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


def _order(module: Any, names: list[str], ancestors: list[str]) -> list[str]:
    """Return the modules in the order in which they first run, and check that padding and a frozen model's mode change nothing.

    Args:
        module: The built model.
        names: Its layers, and what is beside them.
        ancestors: Modules that hold the list of layers, which no group can put into eval mode.
    """
    order: list[str] = []
    handles = []
    modules = dict(module.named_modules())
    for name in names:

        def note(_module: nn.Module, _args: object, name: str = name) -> None:
            if name not in order:
                order.append(name)

        handles += [part.register_forward_pre_hook(note) for part in (modules[name].modules() if name in modules else ())]
    training = module.training
    try:
        with torch.no_grad():
            batches = list(_batches(module.config))
            one, other, alone = (module.eval()(batch) for batch in batches)
            for name in ancestors:
                module.get_submodule(name).training = True
            same = module(batches[0])
    except Exception as error:  # of many classes
        raise _refusal(module.config.model_type, f"it fails on two short texts: {type(error).__name__}: {error}") from error
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    if not torch.equal(one, same):
        reason = "it has dropout outside its modules, which no group could freeze; switch that off by an option of zoo.get"
        raise _refusal(module.config.model_type, reason)
    if not isinstance(one, Tensor) or one.ndim != 3 or one.shape[1] != TOKENS:
        raise _refusal(module.config.model_type, "it does not return one vector per token")
    short, scale = one[1, : TOKENS // 2], float(one.abs().max())
    content = torch.allclose(short, other[1, : TOKENS // 2], rtol=1e-5, atol=1e-6 * scale)
    if not content or not torch.allclose(short, alone[0], rtol=1e-3, atol=1e-4 * scale):  # another size, another order of sums
        raise _refusal(module.config.model_type, "padding changes what a text gives")
    return order


def _batches(config: Any) -> Iterator[Mapping[str, Tensor]]:
    """Yield two short texts, the same with another padding, and the shorter one alone without any."""
    ids = torch.arange(2 * TOKENS).view(2, TOKENS) % max(2, min(config.vocab_size - 2, 20)) + 1
    mask = torch.ones_like(ids)
    mask[1, TOKENS // 2 :] = 0
    for padding in (0, 1):
        yield {"input_ids": torch.where(mask.bool(), ids, padding), "attention_mask": mask}
    yield {"input_ids": ids[1:, : TOKENS // 2], "attention_mask": mask[1:, : TOKENS // 2]}
