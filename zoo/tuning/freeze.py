"""Frozen prefixes: no gradient and eval mode as a whole, so that nothing in them moves."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from zoo.errors import LayerGroupError, OptionError, did_you_mean
from zoo.models.layers import LayerGroups


def is_bias(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether a parameter is a bias vector, those of norms included (BitFit, Ben Zaken et al. 2022).

    Beside ``bias`` there are the biases that a layer keeps under a name of its own, such as ``in_proj_bias`` and ``q_bias``;
    tables of biases by position are matrices and none.
    """
    last = name.rpartition(".")[2]
    return last == "bias" or (last.endswith("_bias") and parameter.ndim == 1)


def _is_lora(name: str, _parameter: nn.Parameter) -> bool:
    return ".lora_" in f".{name}"


def _any(_name: str, _parameter: nn.Parameter) -> bool:
    return True


SELECTIONS: dict[str, Callable[[str, nn.Parameter], bool]] = {"all": _any, "lora": _is_lora, "bias": is_bias}


def freeze_prefix(groups: LayerGroups, length: int, trains: str = "all") -> None:
    """Freeze the first ``length`` groups and unfreeze the others, in place.

    Frozen parameters lose their gradient, so that an optimizer that holds them skips them. A parameter tied across
    groups belongs to the first of them.

    Args:
        groups: All groups of the backbone.
        length: Length of the frozen prefix, in groups.
        trains: What of the other groups trains: ``all`` parameters, those of ``lora``, or the ``bias`` vectors.

    Raises:
        OptionError: If there is no such choice of parameters.
        LayerGroupError: If it holds no parameter of the groups that are not frozen.
    """
    chosen = _chosen(groups, length, trains)
    for parameter in groups.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
        if id(parameter) not in chosen:
            parameter.grad = None


def _chosen(groups: LayerGroups, length: int, trains: str) -> set[int]:
    """Return the ids of the parameters that train."""
    if trains not in SELECTIONS:
        raise OptionError(f"trains={trains!r} is none of {', '.join(SELECTIONS)}{did_you_mean(trains, SELECTIONS)}")
    frozen = {id(parameter) for parameter in groups[:length].parameters()}
    named = [(name, parameter) for name, parameter in groups.named_parameters() if id(parameter) not in frozen]
    chosen = {id(parameter) for name, parameter in named if SELECTIONS[trains](name, parameter)}
    if length < len(groups) and not chosen and trains != "all":
        remedy = {"lora": "attach LoRA to them first (recipe='lora'), or freeze them", "bias": "freeze them, or let everything train"}
        raise LayerGroupError(f"trains={trains!r} selects no parameter of the groups {', '.join(groups[length:].names)}: {remedy[trains]}")
    return chosen


def apply_eval(groups: LayerGroups, length: int) -> None:
    """Put the first ``length`` groups into eval mode, in place; to be called after every ``train()``.

    BatchNorm statistics of every dimension, dropout and drop-path then stand still. With all groups frozen the whole
    backbone is in eval mode, functional dropout at its root included.
    """
    if length == len(groups):
        groups.model.eval()
    for group in groups[:length]:
        for _, module in group.modules():
            module.eval()
