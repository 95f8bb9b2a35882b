"""Frozen prefixes: no gradients, and eval mode, so that neither parameters nor buffers change."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from zoo.errors import LayerGroupError, OptionError, did_you_mean
from zoo.models.layers import LayerGroups
from zoo.tuning.efficient.kinds import KINDS


def is_bias(name: str, parameter: nn.Parameter) -> bool:
    """Return whether a parameter is a bias vector, of norms too (BitFit, Ben Zaken et al. 2022).

    Besides ``bias`` these are biases with other names, such as ``in_proj_bias`` and ``q_bias``. Tables of position biases are
    matrices and do not count.
    """
    last = name.rpartition(".")[2]
    return last == "bias" or (last.endswith("_bias") and parameter.ndim == 1)


def _marked(mark: str) -> Callable[[str, nn.Parameter], bool]:
    return lambda name, _parameter: f".{mark}" in f".{name}"


def _any(_name: str, _parameter: nn.Parameter) -> bool:
    return True


SELECTIONS: dict[str, Callable[[str, nn.Parameter], bool]] = {
    "all": _any,
    "bias": is_bias,
    **{name: _marked(kind.mark) for name, kind in KINDS.items()},
}


def freeze_prefix(groups: LayerGroups, length: int, trains: str = "all") -> None:
    """Freeze the first ``length`` groups and unfreeze the others, in place.

    Gradients of frozen parameters are set to None, so that an optimizer skips them. A parameter tied across groups belongs to
    the first of them.

    Args:
        groups: All groups of the backbone.
        length: Length of the frozen prefix, in groups.
        trains: Trainable parameters of the other groups: ``all``, the ``bias`` vectors, or those of an update, such as ``lora``.

    Raises:
        OptionError: If there is no such choice of parameters.
        LayerGroupError: If the other groups have no such parameter.
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
        update = f"attach {KINDS[trains].title} to them first (recipe={trains!r}), or freeze them" if trains in KINDS else ""
        remedy = update or "freeze them, or let everything train"
        raise LayerGroupError(f"trains={trains!r} selects no parameter of the groups {', '.join(groups[length:].names)}: {remedy}")
    return chosen


def apply_eval(groups: LayerGroups, length: int) -> None:
    """Put the first ``length`` groups into eval mode, in place; to be called after every ``train()``.

    BatchNorm statistics then stay fixed, and dropout and drop-path are off. With all groups frozen the whole backbone is in
    eval mode, including functional dropout at its root.
    """
    if length == len(groups):
        groups.model.eval()
    for group in groups[:length]:
        for _, module in group.modules():
            module.eval()
