"""Checks of a network of the user's own before it becomes a backbone."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from zoo.declare import Features, Image, Text, Volume
from zoo.errors import OptionError, count, examples, fault_list

log = logging.getLogger("zoo")
INPUTS = "inputs=224, or zoo.Image(size=…, mean=…, std=…), zoo.Text(…)"
# Wrappers that hide the network they run, by the name of their class: what to give instead.
HIDDEN_IN = {
    "DataParallel": "its .module; a run is shared among devices by --num-processes or torchrun",
    "DistributedDataParallel": "its .module; a run is shared among devices by --num-processes or torchrun",
    "OptimizedModule": "its ._orig_mod; fit(compile=True) compiles it for a run",
}


def check_wrapped(module: nn.Module, *, inputs: Any, layers: Any, features: Any, name: str) -> None:
    """Check the arguments of ``zoo.wrap``.

    Raises:
        OptionError: Naming every wrong argument and its remedy.
    """
    known = isinstance(inputs, int | Image | Text | Volume)
    faults = [
        (isinstance(features, Features | None), f"features is {features!r}; give zoo.Features(dim=…, layout=…), or leave it out"),
        ("/" not in name, f"name is {name!r}; a network of your own is called own/NAME, so give a name without a slash"),
        (inputs is not None, f"zoo.wrap needs inputs, what the network reads: {INPUTS}"),
        (known or inputs is None, f"inputs is {inputs!r}; give what the network reads: {INPUTS}"),
        (isinstance(layers, Mapping | None), f"layers is {layers!r}; give a mapping from names to members, such as {_layers_of(layers)}"),
        *((False, fault) for fault in _faults_of(module)),
    ]
    wrong = [fault for fine, fault in faults if not fine]
    if wrong:
        raise OptionError(wrong[0] if len(wrong) == 1 else fault_list("zoo.wrap cannot work with these arguments:", wrong))


def _layers_of(layers: Any) -> str:
    names = [name for name in layers if isinstance(name, str)] if isinstance(layers, Sequence) and not isinstance(layers, str) else []
    return f"layers={ {name: [name] for name in names} or {'stem': ['conv1', 'bn1'], 'stage1': 'layer1'} }"


def _faults_of(module: nn.Module) -> list[str]:
    """Return why a module cannot be a backbone: hidden in a wrapper, without Python code, or with several inputs."""
    kind = type(module).__name__
    if kind in HIDDEN_IN:
        return [f"the network is inside a {kind}, which hides its layers; give {HIDDEN_IN[kind]}"]
    if any(base.__name__ == "ScriptModule" for base in type(module).__mro__):
        return [f"{kind} is TorchScript, whose layers cannot be frozen or copied; give the module it was made from"]
    needed = [
        parameter.name
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.default is parameter.empty and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) > 1:
        return [f"{kind}.forward needs {len(needed)} inputs ({', '.join(needed)}), and a backbone is given one; wrap what takes one"]
    return []


def copied(module: nn.Module, name: str) -> nn.Module:
    """Return a copy of a network.

    Raises:
        OptionError: If it cannot be copied, with the attributes that are the cause.
    """
    try:
        return copy.deepcopy(module)
    except Exception as error:
        kept = [f"{place}{key}" for place, key, value in _attributes(module) if isinstance(value, Tensor) and not value.is_leaf]
        cause = f"it keeps results of a computation: {examples(kept)}; detach() them, or leave them out" if kept else "make it copyable"
        failed = f"{name!r} fails in copy.deepcopy ({type(error).__name__}: {error})"
        raise OptionError(f"adapt() works on a copy, and {failed}; {cause}") from error


def warn_of_network(module: nn.Module, name: str) -> None:
    """Log what of a network would surprise: layers that are not registered, and parameters that do not require gradients."""
    loose = sorted(
        f"{place}{key}"
        for place, key, value in _attributes(module)
        if isinstance(value, list | tuple | dict)
        and any(isinstance(part, nn.Module) for part in (value.values() if isinstance(value, dict) else value))
        and not _registered(module, value)
    )
    if loose:
        log.warning(
            "%s: the modules in %s are in a plain list, tuple or dict, so they are neither trained nor saved, and a loaded model has "
            "other values; use torch.nn.ModuleList or ModuleDict",
            *(name, examples(loose)),
        )
    held = [key for key, parameter in module.named_parameters() if not parameter.requires_grad]
    if held:
        log.warning(
            "%s: %s do not require gradients (%s), but the recipe decides what trains; model.fit(freeze=…) freezes layer groups from the "
            "input on",
            *(name, count(len(held), "parameter"), examples(held)),
        )


def _registered(module: nn.Module, value: Any) -> bool:
    known = {id(part) for part in module.modules()}
    parts = value.values() if isinstance(value, dict) else value
    return all(id(part) in known for part in parts if isinstance(part, nn.Module))


def _attributes(module: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Yield the plain attributes of a module and its children: prefix with a dot, name, value."""
    for place, part in module.named_modules():
        for key, value in vars(part).items():
            if not key.startswith("_"):
                yield (f"{place}." if place else ""), key, value
