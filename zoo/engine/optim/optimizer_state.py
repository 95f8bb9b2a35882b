"""State of any optimizer as named tensors, and back, bit for bit.

Names are ``parameter:key``, ``@index:key`` for a param group and ``@:key`` for the optimizer itself. A list of tensors has
one entry per item, ``key[0]``. Values that are not tensors (None, a step count, a list of numbers) are JSON in a uint8 tensor
under ``key!json``, because a checkpoint holds tensors only.
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
# Fields of a param group that the configuration decides, and the rates, which are set at every step.
_SETTINGS = frozenset({"params", "param_names", "lr", "initial_lr", "weight_decay", "group"})
# Counters that torch keeps on the CPU for parameters on any device, unless the optimizer is fused or capturable.
_COUNTERS = frozenset({"step", "mu_product"})


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's whole state, the tensors uncopied.

    Raises:
        TrainingError: If the state holds something that is neither tensors nor plain data.
    """
    result: dict[str, Tensor] = {}
    for owner, values in _owners(optimizer):
        for key, value in values.items():
            result |= _named(f"{owner}:{key}", value, optimizer)
    return result


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the state that ``optimizer_tensors`` returned, in place; the previous state is dropped.

    Raises:
        SavedModelError: If the state belongs to parameters that this model does not have.
    """
    by_owner: dict[str, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        owner, _, key = full.rpartition(":")
        by_owner.setdefault(owner, {})[key] = value
    if unknown := sorted(set(by_owner) - {owner for owner, _ in _owners(optimizer)}):
        raise SavedModelError(f"the checkpoint has optimizer state for parameters that the model does not have: {examples(unknown)}")
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
    """Yield the names of parameters, param groups and the optimizer, each with its state."""
    state: Mapping[Any, Any] = optimizer.state  # typed by parameter, but some optimizers add keys of their own
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
    """Return the state of one owner from its named tensors; the inverse of ``_named``."""
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
    """Return a copy of one parameter's state on the device that the optimizer expects."""
    if key.endswith(_JSON):
        return value
    if key not in _COUNTERS and value.shape == parameter.shape:
        # Fused optimizers need moments in the parameter's memory format.
        return torch.empty_like(parameter.detach(), dtype=value.dtype).copy_(part_of(value, parameter))
    counts = key in _COUNTERS and not on_device
    return value.to("cpu" if counts else parameter.device, copy=True)
