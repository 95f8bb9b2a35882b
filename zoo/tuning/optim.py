"""Param groups of an optimizer from layer groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from zoo.errors import OptionError
from zoo.models.layers import LayerGroups
from zoo.tuning.efficient.kinds import is_scale


def param_groups(
    groups: LayerGroups,
    head: nn.Module,
    *,
    lr: float,
    layer_decay: float = 1.0,
    weight_decay: float = 0.0,
    extra: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """Split parameters into optimizer groups with geometrically decayed learning rates.

    The head trains at ``lr``; the last layer group at ``lr * layer_decay``, the one before at ``lr * layer_decay**2`` and so on
    toward the input (BEiT, Bao et al. 2021). Tensors with one dimension or fewer, and factors and
    norms of outputs ((IA)^3, DoRA), get no weight decay. Frozen parameters are
    included: torch skips parameters without gradient, so unfreezing later needs no new optimizer.

    Args:
        groups: Layer groups of the backbone, input side first.
        head: The task head.
        lr: Learning rate of the head, per optimizer step.
        layer_decay: Factor per group, in (0, 1]. 1 gives every group the same rate.
        weight_decay: Decoupled decay per step, as AdamW defines it.
        extra: A module with further modules beside the model, such as a projector; what of it requires gradients and is not the
            model's trains at ``lr``, in the group ``extra``.

    Returns:
        Dicts for ``torch.optim``, head last, each with ``params``, their dotted ``param_names``, ``lr``, ``weight_decay`` and
        ``group``. Every parameter is in exactly one; a tied one in the first group that holds it.

    Raises:
        OptionError: If ``layer_decay`` is outside (0, 1], or ``lr`` or ``weight_decay`` is negative.
    """
    _check(lr, layer_decay, weight_decay)
    seen: set[int] = set()
    result: list[dict[str, Any]] = []
    for group in groups:
        rate = lr * layer_decay ** (len(groups) - group.index)
        result += _param_groups(group.named_parameters(), f"{group.name}", "backbone.", rate, weight_decay, seen)
    further = [] if extra is None else [(name, parameter) for name, parameter in extra.named_parameters() if parameter.requires_grad]
    result += _param_groups(further, "extra", "extra.", lr, weight_decay, seen | _ids(head))
    return result + _param_groups(head.named_parameters(), "head", "head.", lr, weight_decay, seen)


def _ids(module: nn.Module) -> set[int]:
    return {id(parameter) for parameter in module.parameters()}


def _param_groups(
    named: Iterable[tuple[str, nn.Parameter]], group: str, prefix: str, lr: float, weight_decay: float, seen: set[int]
) -> list[dict[str, Any]]:
    """Return a dict for parameters with weight decay and one for those without, unless empty."""
    fresh = [(name, p) for name, p in named if id(p) not in seen and not seen.add(id(p))]  # type: ignore[func-returns-value]  # add() is None
    decayed = [pair for pair in fresh if pair[1].ndim > 1 and not is_scale(pair[0])]
    left = {name for name, _ in decayed}
    parts = ((weight_decay, decayed), (0.0, [pair for pair in fresh if pair[0] not in left]))
    return [
        {
            "params": [parameter for _, parameter in part],
            "param_names": [prefix + name for name, _ in part],
            "lr": lr,
            "weight_decay": decay,
            "group": group,
        }
        for decay, part in parts
        if part
    ]


def _check(lr: float, layer_decay: float, weight_decay: float) -> None:
    checks = [
        (not lr >= 0, f"lr is {lr}; it must be 0 or more"),
        (not 0 < layer_decay <= 1, f"layer_decay is {layer_decay}; it must be in (0, 1]"),
        (not weight_decay >= 0, f"weight_decay is {weight_decay}; it must be 0 or more"),
    ]
    faults = [message for wrong, message in checks if wrong]
    if faults:
        raise OptionError("; ".join(faults))
