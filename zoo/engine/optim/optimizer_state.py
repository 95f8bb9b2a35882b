"""The state of any optimizer as named tensors, and back, to the last bit.

Names are ``parameter:key``; what belongs to a param group ``@index:key``; what belongs to the optimizer ``@:key``. A list
of tensors has one entry per item, ``key[0]``; whatever is no tensor (None, a step count, a list of numbers) is JSON in
a uint8 tensor under ``key!json``, because a checkpoint holds tensors only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from zoo.errors import SavedModelError, TrainingError, examples
from zoo.tuning.shard import part_of

_JSON = "!json"
# Of each param group: the configuration decides these, and the run sets the rates anew at every step.
_SETTINGS = frozenset({"params", "param_names", "lr", "initial_lr", "weight_decay", "group"})
# Counters that torch keeps on the CPU, whatever the parameter's device, unless the optimizer is fused or capturable.
_COUNTERS = frozenset({"step", "mu_product"})


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's whole state, the tensors uncopied.

    Raises:
        TrainingError: If it keeps something that is neither tensors nor plain data.
    """
    result: dict[str, Tensor] = {}
    for owner, values in _owners(optimizer):
        for key, value in values.items():
            result |= _named(f"{owner}:{key}", value, optimizer)
    return result


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` gave, in place; what the optimizer held before is forgotten.

    Raises:
        SavedModelError: If the state belongs to parameters that this model does not have.
    """
    by_owner: dict[str, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        owner, _, key = full.rpartition(":")
        by_owner.setdefault(owner, {})[key] = value
    if strangers := sorted(set(by_owner) - {owner for owner, _ in _owners(optimizer)}):
        raise SavedModelError(f"the checkpoint has optimizer state for parameters that the model does not have: {examples(strangers)}")
    state: MutableMapping[Any, Any] = optimizer.state
    state.clear()
    for index, group in enumerate(optimizer.param_groups):
        for key in [key for key in group if key not in _SETTINGS and key not in optimizer.defaults]:
            del group[key]
        group.update(_joined(by_owner.get(f"@{index}", {})))
        on_device = bool(group.get("fused") or group.get("capturable"))
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            if held := by_owner.get(name):
                state[parameter] = _joined({key: _placed(key, value, parameter, on_device) for key, value in held.items()})
    state.update(_joined(by_owner.get("@", {})))


def _owners(optimizer: torch.optim.Optimizer) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield the name of everything that has state, and its state."""
    state: Mapping[Any, Any] = optimizer.state  # typed by parameter, but some keep a value of their own beside them
    yield "@", {key: value for key, value in state.items() if isinstance(key, str)}
    for index, group in enumerate(optimizer.param_groups):
        yield f"@{index}", {key: value for key, value in group.items() if key not in _SETTINGS and key not in optimizer.defaults}
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            yield name, state.get(parameter, {})


def _named(name: str, value: Any, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {name: value}
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Tensor) for item in value):
        return {f"{name}[{index}]": item for index, item in enumerate(value)}
    try:
        return {name + _JSON: torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)}
    except TypeError as error:
        raise TrainingError(
            f"{type(optimizer).__name__} keeps {name!r} as {type(value).__name__}, which no checkpoint can hold; choose another optimizer"
        ) from error


def _joined(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """Undo ``_named`` for the keys of one owner."""
    result: dict[str, Any] = {}
    for key, value in flat.items():
        if key.endswith(_JSON):
            result[key.removesuffix(_JSON)] = json.loads(bytes(value.tolist()))
        elif item := re.fullmatch(r"(.+)\[(\d+)\]", key):
            result.setdefault(item[1], {})[int(item[2])] = value
        else:
            result[key] = value
    return {key: [value[at] for at in sorted(value)] if isinstance(value, dict) else value for key, value in result.items()}


def _placed(key: str, value: Tensor, parameter: Tensor, on_device: bool) -> Tensor:
    """Return a copy of one parameter's state where the optimizer expects it."""
    if key.endswith(_JSON):
        return value
    if key not in _COUNTERS and value.shape == parameter.shape:
        # The fused ones refuse moments whose memory format is not the parameter's.
        return torch.empty_like(parameter.detach(), dtype=value.dtype).copy_(part_of(value, parameter))
    counts = key in _COUNTERS and not on_device
    return value.to("cpu" if counts else parameter.device, copy=True)
